//! Segments of the log: any bytes after a header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidemill_store::fuzzing::record(data));
