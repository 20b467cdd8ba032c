//! [`Test`]: one alternative at a leaf.

use std::net::IpAddr;

use super::number::Num;
use super::wildcard::Wildcard;

/// A leaf of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'v> {
    Null,
    Bool(bool),
    Number(Num),
    Text(&'v str),
}

/// One alternative at a leaf. Those that compare in any case hold their text folded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test {
    Null,
    Bool(bool),
    Number(Num),
    Text(String),
    Prefix(String),
    PrefixFolded(String),
    Suffix(String),
    SuffixFolded(String),
    Folded(String),
    Wildcard(Wildcard),
    Range(Range),
    Cidr(Cidr),
    /// Whatever the leaf is.
    Exists,
    /// Whatever the leaf is, unless it passes one of these.
    AnythingBut(Vec<Test>),
}

impl Test {
    pub(crate) fn passes(&self, leaf: Scalar<'_>) -> bool {
        match (self, leaf) {
            (Test::Exists, _) => true,
            (Test::AnythingBut(tests), leaf) => !tests.iter().any(|test| test.passes(leaf)),
            (Test::Null, Scalar::Null) => true,
            (Test::Bool(wanted), Scalar::Bool(value)) => *wanted == value,
            (Test::Number(wanted), Scalar::Number(value)) => *wanted == value,
            (Test::Range(range), Scalar::Number(value)) => range.contains(value),
            (Test::Text(wanted), Scalar::Text(text)) => wanted == text,
            (Test::Prefix(prefix), Scalar::Text(text)) => text.starts_with(prefix.as_str()),
            (Test::Suffix(suffix), Scalar::Text(text)) => text.ends_with(suffix.as_str()),
            (Test::Folded(wanted), Scalar::Text(text)) => folded(text).eq(wanted.chars()),
            (Test::PrefixFolded(prefix), Scalar::Text(text)) => begins(folded(text), prefix.chars()),
            (Test::SuffixFolded(suffix), Scalar::Text(text)) => {
                // Backwards, character by character; the few that fold to several come out in order.
                let mut reversed: Vec<char> = Vec::with_capacity(suffix.len());
                for c in text.chars().rev() {
                    if reversed.len() >= suffix.len() {
                        break;
                    }
                    let at = reversed.len();
                    reversed.extend(c.to_lowercase());
                    if let Some(added) = reversed.get_mut(at..) {
                        added.reverse();
                    }
                }
                begins(reversed.into_iter(), suffix.chars().rev())
            }
            (Test::Wildcard(wildcard), Scalar::Text(text)) => wildcard.matches(text),
            (Test::Cidr(cidr), Scalar::Text(text)) => {
                text.parse().is_ok_and(|address| cidr.contains(address))
            }
            _ => false,
        }
    }
}

fn folded(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

fn begins(mut text: impl Iterator<Item = char>, mut wanted: impl Iterator<Item = char>) -> bool {
    wanted.all(|c| text.next() == Some(c))
}

/// Text in the form in which case does not matter: each character in lower case.
pub(crate) fn fold(text: &str) -> String {
    folded(text).collect()
}

/// As [`fold`], into a buffer that is used again and again.
pub(crate) fn fold_into(text: &str, out: &mut String) {
    out.clear();
    out.extend(folded(text));
}

/// Numbers between two bounds; at least one of them is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) lower: Option<Bound>,
    pub(crate) upper: Option<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bound {
    pub(crate) value: Num,
    pub(crate) included: bool,
}

impl Range {
    pub(crate) fn contains(&self, value: Num) -> bool {
        let above =
            self.lower.is_none_or(|bound| value > bound.value || (bound.included && value == bound.value));
        let below =
            self.upper.is_none_or(|bound| value < bound.value || (bound.included && value == bound.value));
        above && below
    }

    /// Whether no number is in it.
    pub(crate) fn is_empty(&self) -> bool {
        match (self.lower, self.upper) {
            (Some(lower), Some(upper)) => {
                lower.value > upper.value
                    || (lower.value == upper.value && !(lower.included && upper.included))
            }
            _ => false,
        }
    }
}

/// A network of IP addresses. Never contains an address of the other family, IPv4-mapped IPv6 among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Parses `10.0.0.0/8` or `2001:db8::/32`. Bits behind the prefix do not matter.
    pub(crate) fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits: u8 = bits.parse().ok().filter(|_| digits)?;
        Cidr::around(address, bits)
    }

    /// The network of `bits` bits that an address is in; `None` if its family has fewer.
    pub(crate) fn around(address: IpAddr, bits: u8) -> Option<Cidr> {
        let network = match address {
            IpAddr::V4(address) => {
                let shift = 32_u32.checked_sub(u32::from(bits))?;
                IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into())
            }
            IpAddr::V6(address) => {
                let shift = 128_u32.checked_sub(u32::from(bits))?;
                IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into())
            }
        };
        Some(Cidr { network, bits })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        Cidr::around(address, self.bits).as_ref() == Some(self)
    }

    pub(crate) fn bits(&self) -> u8 {
        self.bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_do_not_cross_families() {
        let net = |text: &str| Cidr::parse(text).expect("a network");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(net("10.1.2.3/8").contains(ip("10.200.0.1")));
        assert!(!net("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(net("0.0.0.0/0").contains(ip("255.1.2.3")));
        assert!(!net("0.0.0.0/0").contains(ip("::1")));
        assert!(!net("0.0.0.0/0").contains(ip("::ffff:10.0.0.1")));
        assert!(!net("::/0").contains(ip("10.0.0.1")));
        assert!(net("2001:db8::/32").contains(ip("2001:db8:1::5")));
        assert!(net("::1/128").contains(ip("::1")));
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "x/8",
            "10.0.0.0/256",
        ] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn case_does_not_matter_beyond_ascii() {
        let text = |text| Scalar::Text(text);
        assert!(Test::Folded(fold("ÄPFEL")).passes(text("äpfel")));
        assert!(Test::PrefixFolded(fold("ÄP")).passes(text("äPfel")));
        assert!(Test::SuffixFolded(fold("FEL")).passes(text("Äpfel")));
        assert!(!Test::SuffixFolded(fold("FELX")).passes(text("fel")));
        assert!(Test::SuffixFolded(fold("xİ")).passes(text("Xİ")));
        assert!(Test::SuffixFolded(String::new()).passes(text("")));
        assert!(!Test::Folded(fold("5")).passes(Scalar::Number(Num::from(5_u64))));
    }

    #[test]
    fn anything_but_is_about_any_leaf() {
        let test = Test::AnythingBut(vec![Test::Text("a".into()), Test::Number(Num::from(1_u64))]);
        assert!(!test.passes(Scalar::Text("a")));
        assert!(!test.passes(Scalar::Number(Num::from(1.0))));
        assert!(test.passes(Scalar::Text("b")));
        assert!(test.passes(Scalar::Null));
        assert!(test.passes(Scalar::Bool(true)));
    }

    #[test]
    fn ranges() {
        let bound = |value: f64, included| Some(Bound { value: Num::from(value), included });
        let range = Range { lower: bound(0.0, false), upper: bound(5.0, true) };
        assert!(!range.contains(Num::from(0_u64)));
        assert!(range.contains(Num::from(0.1)));
        assert!(range.contains(Num::from(5_u64)));
        assert!(!range.contains(Num::from(5.1)));
        assert!(!range.is_empty());
        assert!(Range { lower: bound(5.0, true), upper: bound(5.0, false) }.is_empty());
        assert!(!Range { lower: bound(5.0, true), upper: bound(5.0, true) }.is_empty());
        assert!(Range { lower: bound(6.0, true), upper: bound(5.0, true) }.is_empty());
    }
}
