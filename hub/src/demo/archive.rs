//! What the file target wrote: one CloudEvent a line, in the JSON event format.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::expect::Stream;
use super::function;
use super::ledger::Arrivals;

/// Reads the whole file. One that was never written is empty.
pub(super) fn arrivals(path: &Path) -> io::Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(arrivals),
        file => file?,
    };
    for line in BufReader::new(file).lines() {
        let event: Option<Value> = serde_json::from_str(&line?).ok();
        match event
            .as_ref()
            .and_then(function::read)
            .and_then(|(id, ty, key)| Some((Stream::of_file(ty)?, id, key)))
        {
            Some((stream, id, key)) => arrivals.arrived(stream, id, key),
            None => arrivals.unreadable(),
        }
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_events() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("archive.jsonl");
        let line = r#"{"id":"i","type":"com.example.vehicle.report","data":{"vehicle":"v00001","seq":1}}"#;
        std::fs::write(&path, format!("{line}\n{line}\n{{\n")).unwrap();
        let told = format!("{:?}", arrivals(&path).unwrap());
        assert!(told.contains("duplicates: 1") && told.contains("unreadable: 1"), "{told}");
        assert!(arrivals(&dir.path().join("none")).is_ok());
    }
}
