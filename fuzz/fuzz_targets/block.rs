//! Blocks, ends of queues and cuts: any bytes as values of the index.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidemill_store::fuzzing::block(data));
