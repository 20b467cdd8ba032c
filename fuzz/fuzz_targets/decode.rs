//! The MQTT codec: any bytes over a connection, however they are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidemill_fuzz::mqtt::codec::fuzzing::decode(data));
