//! libFuzzer's entry to `headcount_fuzz::cookies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headcount_fuzz::cookies(data));
