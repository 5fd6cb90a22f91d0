//! libFuzzer's entry to `headcount_fuzz::set_cookie`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| headcount_fuzz::set_cookie(data));
