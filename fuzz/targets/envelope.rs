//! Fuzzes a framing; what is done with the bytes stands in `wharf_fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::envelope(data));
