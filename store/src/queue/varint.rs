//! Numbers of 7 bits a byte, the low ones first; the high bit says that more follow (LEB128).

/// Appends a number: 1 to 10 bytes.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number from the front.
pub(crate) fn get(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or("it is cut off")?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err("a number overflows");
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(value: u64, after: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, value);
            out.extend(&after);
            let mut rest = out.as_slice();
            prop_assert_eq!(get(&mut rest), Ok(value));
            prop_assert_eq!(rest, after);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = get(&mut bytes.as_slice());
        }
    }
}
