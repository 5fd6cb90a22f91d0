//! libFuzzer's entry to `headcount_fuzz::proxy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headcount_fuzz::proxy(data));
