//! Kernels for x86-64. Two things are unsafe: loads and stores of vectors, and calling a kernel,
//! which requires that the processor has its instructions.

mod avx2;
mod avx512;
mod compression;
mod lanes;
mod sha_ni;

use std::arch::is_x86_feature_detected as has;

use super::kernel::Kernel;

/// Returns the kernels that this processor can run.
pub(super) fn available() -> Vec<Kernel> {
    let mut kernels = Vec::new();
    if has!("sha") && has!("sse4.1") && has!("ssse3") {
        // SAFETY: these are the features that the function is compiled with.
        kernels.push(unsafe { Kernel::new("SHA-NI x2", 2, sha_ni::digest_group::<2>) });
        // SAFETY: likewise.
        kernels.push(unsafe { Kernel::new("SHA-NI x4", 4, sha_ni::digest_group::<4>) });
    }
    if has!("avx2") {
        // SAFETY: this is the feature that the function is compiled with.
        kernels.push(unsafe { Kernel::new("AVX2 x8", avx2::LANES, avx2::digest_group) });
    }
    if has!("avx512f") && has!("avx512bw") {
        // SAFETY: these are the features that the function is compiled with.
        kernels.push(unsafe { Kernel::new("AVX-512 x16", avx512::LANES, avx512::digest_group) });
    }
    kernels
}
