//! [`Memory`]: what a process takes, as the system counts it.

/// Where the system says it of this process.
pub(crate) const OWN: &str = "/proc/self/statm";

/// Memory of a process that is in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// All of it.
    pub(crate) resident_bytes: u64,
    /// What belongs to no file: heap and stacks. The log, which is mapped, is not in it.
    pub(crate) anonymous_bytes: u64,
}

impl Memory {
    /// What this process takes; `None` where the system does not say.
    pub(crate) fn own() -> Option<Memory> {
        Memory::parse(&std::fs::read_to_string(OWN).ok()?)
    }

    /// Reads `statm`: pages in all, resident, shared with files, and others.
    pub(crate) fn parse(statm: &str) -> Option<Memory> {
        let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
        let (resident, shared) = (fields.next()??, fields.next()??);
        let page_bytes = rustix::param::page_size() as u64;
        Some(Memory {
            resident_bytes: resident * page_bytes,
            anonymous_bytes: resident.saturating_sub(shared) * page_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let page_bytes = rustix::param::page_size() as u64;
        let told = Memory { resident_bytes: 50 * page_bytes, anonymous_bytes: 30 * page_bytes };
        assert_eq!(Memory::parse("100 50 20 1 0 40 0\n"), Some(told));
        assert_eq!(Memory::parse("100 50"), None);
        assert_eq!(Memory::parse("100 much 20"), None);
        assert!(Memory::own().is_some_and(|own| own.resident_bytes > own.anonymous_bytes));
    }
}
