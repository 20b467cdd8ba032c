//! Which events a report must lead to, said in plain Rust: the other opinion that the rule engine is held against.
//! `rules.yaml` beside this file says the same in the rule language.

use super::vehicle::Facts;

/// One target of one rule: where events of one kind arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stream {
    /// Rule `overheat` to the HTTP function.
    OverheatHttp,
    /// Rule `low-battery` to the HTTP function.
    LowBatteryHttp,
    /// Rule `critical-fault` to the HTTP function.
    FaultHttp,
    /// Rule `critical-fault` to the file.
    FaultFile,
    /// Rule `archive` to the file.
    ArchiveFile,
}

pub(super) const STREAMS: [Stream; 5] =
    [Stream::OverheatHttp, Stream::LowBatteryHttp, Stream::FaultHttp, Stream::FaultFile, Stream::ArchiveFile];

impl Stream {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stream::OverheatHttp => "overheat → HTTP function",
            Stream::LowBatteryHttp => "low-battery → HTTP function",
            Stream::FaultHttp => "critical-fault → HTTP function",
            Stream::FaultFile => "critical-fault → file",
            Stream::ArchiveFile => "archive → file",
        }
    }

    /// The stream of events of a CloudEvents type at the HTTP function.
    pub(super) fn of_http(ty: &str) -> Option<Stream> {
        match ty {
            "com.example.vehicle.overheat" => Some(Stream::OverheatHttp),
            "com.example.vehicle.lowbattery" => Some(Stream::LowBatteryHttp),
            "com.example.vehicle.fault" => Some(Stream::FaultHttp),
            _ => None,
        }
    }

    /// The stream of events of a CloudEvents type in the file.
    pub(super) fn of_file(ty: &str) -> Option<Stream> {
        match ty {
            "com.example.vehicle.fault" => Some(Stream::FaultFile),
            "com.example.vehicle.report" => Some(Stream::ArchiveFile),
            _ => None,
        }
    }
}

/// The streams in which a report must arrive.
pub(super) fn streams(facts: &Facts) -> Vec<Stream> {
    let mut streams = vec![Stream::ArchiveFile];
    match *facts {
        Facts::Telemetry { temp_c, soc_pct, driving } => {
            if temp_c > 110.0 {
                streams.push(Stream::OverheatHttp);
            }
            if driving && soc_pct < 15.0 {
                streams.push(Stream::LowBatteryHttp);
            }
        }
        Facts::Fault { code, severity } => {
            if severity == "critical" && (code.starts_with("P0") || code.starts_with("U0")) {
                streams.extend([Stream::FaultHttp, Stream::FaultFile]);
            }
        }
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_where_the_rules_have_them() {
        let telemetry =
            |temp_c, soc_pct, driving| streams(&Facts::Telemetry { temp_c, soc_pct, driving }).len();
        assert_eq!(telemetry(110.0, 15.0, true), 1);
        assert_eq!(telemetry(110.1, 14.9, true), 3);
        assert_eq!(telemetry(110.1, 14.9, false), 2);
        let fault = |code, severity| streams(&Facts::Fault { code, severity }).len();
        assert_eq!(fault("P0217", "critical"), 3);
        assert_eq!(fault("P0420", "warning"), 1);
    }
}
