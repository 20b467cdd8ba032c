//! Topic filters and names: any text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidemill_fuzz::mqtt::codec::fuzzing::topic(data));
