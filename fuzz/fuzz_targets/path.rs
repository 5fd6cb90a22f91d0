//! libFuzzer's entry to `headcount_fuzz::path`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headcount_fuzz::path(data));
