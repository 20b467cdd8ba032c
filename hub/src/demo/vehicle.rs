//! [`Vehicle`]: how one vehicle drives and what it reports. Seeded, without I/O or a clock of its own.
//!
//! Time runs faster than outside ([`PACE`]), so that batteries run down and engines get hot while one watches.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Simulated seconds in a second of the demo.
const PACE: f64 = 20.0;
/// Kilometres in a degree of latitude.
const KM_PER_DEGREE: f64 = 111.2;
/// Where the fleet is at home.
const HOME: (f64, f64) = (52.52, 13.405);

/// What a vehicle publishes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    /// Counts the vehicle's reports, from 1.
    pub(super) seq: u64,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) facts: Facts,
}

/// What matters of a report for which events it must lead to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Facts {
    /// A regular report.
    Telemetry { temp_c: f64, soc_pct: f64, driving: bool },
    /// A fault code.
    Fault { code: &'static str, severity: &'static str },
}

/// The payload of `vehicles/{name}/telemetry`.
#[derive(Serialize)]
struct Telemetry<'a> {
    vehicle: &'a str,
    seq: u64,
    state: &'static str,
    position: Position,
    speed_kmh: f64,
    engine: Engine,
    battery: Battery,
    odometer_km: f64,
}

#[derive(Serialize)]
struct Position {
    lat: f64,
    lon: f64,
    heading_deg: f64,
}

#[derive(Serialize)]
struct Engine {
    temp_c: f64,
    rpm: u32,
}

#[derive(Serialize)]
struct Battery {
    soc_pct: f64,
    volt: f64,
}

/// The payload of `vehicles/{name}/fault`.
#[derive(Serialize)]
struct Fault<'a> {
    vehicle: &'a str,
    seq: u64,
    code: &'static str,
    severity: &'static str,
    text: &'static str,
}

/// Fault codes that come by chance (SAE J2012).
const FAULTS: [(&str, &str, &str); 5] = [
    ("P0300", "critical", "random misfire detected"),
    ("P0420", "warning", "catalyst efficiency below threshold"),
    ("U0100", "critical", "lost communication with engine control module"),
    ("C0035", "warning", "left front wheel speed sensor"),
    ("B1342", "info", "electronic control unit is defective"),
];
/// The fault of an engine that is much too hot.
const OVERTEMPERATURE: (&str, &str, &str) = ("P0217", "critical", "engine over-temperature condition");

/// See the module's documentation.
pub(super) struct Vehicle {
    name: String,
    random: StdRng,
    seq: u64,
    lat: f64,
    lon: f64,
    heading_deg: f64,
    speed_kmh: f64,
    /// The speed it is heading for; 0 when it stands.
    wanted_kmh: f64,
    temp_c: f64,
    /// Degrees above normal that a weak cooling system adds at full load.
    weakness_c: f64,
    soc_pct: f64,
    charging: bool,
    odometer_km: f64,
}

impl Vehicle {
    /// The vehicle of a number; the same seed gives the same life.
    pub(super) fn new(number: u32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let weak = random.random_bool(0.06);
        Vehicle {
            name: name(number),
            seq: 0,
            lat: HOME.0 + random.random_range(-0.2..0.2),
            lon: HOME.1 + random.random_range(-0.3..0.3),
            heading_deg: random.random_range(0.0..360.0),
            speed_kmh: 0.0,
            wanted_kmh: random.random_range(20.0..110.0),
            temp_c: random.random_range(70.0..95.0),
            weakness_c: if weak { random.random_range(20.0..45.0) } else { 0.0 },
            soc_pct: random.random_range(8.0..100.0),
            charging: false,
            odometer_km: random.random_range(500.0..180_000.0),
            random,
        }
    }

    /// Lets `elapsed_s` seconds of the demo pass, then reports.
    pub(super) fn report(&mut self, elapsed_s: f64) -> Report {
        self.drive(elapsed_s * PACE);
        self.seq += 1;
        let fault = if self.temp_c > 122.0 && self.random.random_bool(0.1) {
            Some(OVERTEMPERATURE)
        } else if self.random.random_bool(0.015) {
            Some(FAULTS[self.random.random_range(0..FAULTS.len())])
        } else {
            None
        };
        match fault {
            Some(fault) => self.fault(fault),
            None => self.telemetry(),
        }
    }

    /// Whether it loses its network now, on average once in `every_s` seconds, and for how many seconds.
    pub(super) fn goes_offline(&mut self, elapsed_s: f64, every_s: f64) -> Option<f64> {
        let now = self.random.random_bool((elapsed_s / every_s).clamp(0.0, 1.0));
        now.then(|| self.random.random_range(0.5..3.0))
    }

    fn drive(&mut self, dt_s: f64) {
        if self.charging {
            self.soc_pct = (self.soc_pct + 0.05 * dt_s).min(100.0);
            self.charging = self.soc_pct < 90.0;
        } else if self.soc_pct < 6.0 && self.random.random_bool(0.2) {
            self.charging = true;
        }
        if self.charging {
            self.wanted_kmh = 0.0;
        } else if self.random.random_bool((dt_s / 60.0).min(1.0)) {
            let stands = self.random.random_bool(0.2);
            self.wanted_kmh = if stands { 0.0 } else { self.random.random_range(20.0..130.0) };
        }
        // It takes some seconds to change the speed, and about a minute to change the temperature.
        self.speed_kmh = towards(self.speed_kmh, self.wanted_kmh, dt_s / 8.0);
        let load = self.speed_kmh / 130.0;
        let normal_c = if self.speed_kmh < 1.0 { 75.0 } else { 86.0 + 10.0 * load };
        let noise_c = self.random.random_range(-0.4..0.4);
        self.temp_c = towards(self.temp_c, normal_c + self.weakness_c * load, dt_s / 60.0) + noise_c;
        self.soc_pct = (self.soc_pct - 0.004 * load * dt_s).max(0.0);
        self.heading_deg = (self.heading_deg + self.random.random_range(-6.0..6.0)).rem_euclid(360.0);
        let km = self.speed_kmh * dt_s / 3600.0;
        let heading = self.heading_deg.to_radians();
        self.odometer_km += km;
        self.lat += km * heading.cos() / KM_PER_DEGREE;
        self.lon += km * heading.sin() / (KM_PER_DEGREE * self.lat.to_radians().cos());
    }

    fn telemetry(&self) -> Report {
        let driving = self.speed_kmh >= 1.0;
        let (temp_c, soc_pct) = (rounded(self.temp_c, 1), rounded(self.soc_pct, 1));
        let telemetry = Telemetry {
            vehicle: &self.name,
            seq: self.seq,
            state: match (driving, self.charging) {
                (true, _) => "driving",
                (false, true) => "charging",
                (false, false) => "parked",
            },
            position: Position {
                lat: rounded(self.lat, 5),
                lon: rounded(self.lon, 5),
                heading_deg: rounded(self.heading_deg, 0),
            },
            speed_kmh: rounded(self.speed_kmh, 1),
            engine: Engine { temp_c, rpm: if driving { 900 + (self.speed_kmh * 22.0) as u32 } else { 0 } },
            battery: Battery { soc_pct, volt: rounded(11.4 + 1.4 * self.soc_pct / 100.0, 2) },
            odometer_km: rounded(self.odometer_km, 1),
        };
        let facts = Facts::Telemetry { temp_c, soc_pct, driving };
        self.publish("telemetry", &telemetry, facts)
    }

    fn fault(&self, (code, severity, text): (&'static str, &'static str, &'static str)) -> Report {
        let fault = Fault { vehicle: &self.name, seq: self.seq, code, severity, text };
        self.publish("fault", &fault, Facts::Fault { code, severity })
    }

    fn publish(&self, channel: &str, payload: &impl Serialize, facts: Facts) -> Report {
        let payload = serde_json::to_vec(payload).unwrap_or_default();
        Report { seq: self.seq, topic: format!("vehicles/{}/{channel}", self.name), payload, facts }
    }
}

/// What the vehicle of a number is called.
pub(super) fn name(number: u32) -> String {
    format!("v{number:05}")
}

/// The number of the vehicle of a name.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_prefix('v')?.parse().ok()
}

fn towards(value: f64, wanted: f64, share: f64) -> f64 {
    value + (wanted - value) * share.clamp(0.0, 1.0)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_life() {
        let life = |seed| {
            let mut vehicle = Vehicle::new(7, seed);
            (0..50).map(|_| vehicle.report(0.3)).collect::<Vec<_>>()
        };
        assert_eq!(life(1), life(1));
        assert_ne!(life(1), life(2));
        assert_eq!(number(&name(7)), Some(7));
    }

    #[test]
    fn a_fleet_lives_believably_and_shows_everything() {
        let (mut reports, mut hot, mut empty, mut faults, mut parked) = (0, 0, 0, 0, 0);
        for number in 0..1000 {
            let mut vehicle = Vehicle::new(number, 42);
            for _ in 0..60 {
                let report = vehicle.report(1.0 / 3.0);
                reports += 1;
                match report.facts {
                    Facts::Telemetry { temp_c, soc_pct, driving } => {
                        assert!((40.0..160.0).contains(&temp_c), "{temp_c}");
                        assert!((0.0..=100.0).contains(&soc_pct), "{soc_pct}");
                        hot += usize::from(temp_c > 110.0);
                        empty += usize::from(soc_pct < 15.0);
                        parked += usize::from(!driving);
                    }
                    Facts::Fault { .. } => faults += 1,
                }
            }
        }
        let share = |count: usize| count as f64 / f64::from(reports);
        assert!((0.005..0.10).contains(&share(hot)), "hot: {}", share(hot));
        assert!((0.01..0.20).contains(&share(empty)), "empty: {}", share(empty));
        assert!((0.005..0.05).contains(&share(faults)), "faults: {}", share(faults));
        assert!((0.02..0.60).contains(&share(parked)), "parked: {}", share(parked));
    }
}
