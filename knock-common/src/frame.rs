//! The seam between a packet in kernel memory and a packet in a test: reading a few bytes at an offset.

/// A frame as it came from the wire, Ethernet header first.
pub trait Frame {
    /// Returns the `N` bytes at `at`, or `None` if they are not all there.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Returns whether the frame has at least `len` bytes, counting what lies outside its linear part.
    fn is_at_least(&self, len: usize) -> bool;

    /// Returns the offset as it was given.
    ///
    /// In the kernel it takes a way that the verifier does not follow, so that the many ways to reach an offset become
    /// one; it is cut to [`MAX_OFFSET`] there.
    fn blur(&self, at: usize) -> usize;
}

/// Largest offset that [`Frame::blur`] keeps: more than the longest chain of headers, less than the 65,535 that the
/// verifier allows for packet offsets.
pub const MAX_OFFSET: usize = 0x3fff;

impl Frame for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let (bytes, _) = self.get(at..)?.split_first_chunk::<N>()?;
        Some(*bytes)
    }

    fn is_at_least(&self, len: usize) -> bool {
        self.len() >= len
    }

    fn blur(&self, at: usize) -> usize {
        at
    }
}
