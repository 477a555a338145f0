//! Atomic operations on 64-bit words in map values, which `core` does not have for this target.
//!
//! Kernel 5.12 and later (commit 5ffa25502b5a, "bpf: Add instructions for atomic_[cmp]xchg").

use core::arch::asm;

/// Puts `new` into the word if it holds `old`; returns whether it did.
///
/// # Safety
///
/// `word` points into a map value and is aligned to 8 bytes.
#[inline(always)]
pub unsafe fn compare_and_swap(word: *mut u64, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: the caller's word; r0 carries the expected value in and the found value out.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") found,
        );
    }
    found == old
}

/// Sets bits in the word.
///
/// # Safety
///
/// `word` points into a map value and is aligned to 8 bytes.
#[inline(always)]
pub unsafe fn set_bits(word: *mut u64, bits: u64) {
    // SAFETY: the caller's word.
    unsafe { asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits) }
}
