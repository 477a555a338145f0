//! The seam between a packet in kernel memory and a packet in a test: reading a few bytes at an offset.

/// A frame as it came from the wire, Ethernet header first.
pub trait Frame {
    /// Returns the `N` bytes at `at`, or `None` if they are not all there.
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Returns whether the frame has at least `len` bytes, counting what lies outside its linear part.
    fn is_at_least(&self, len: usize) -> bool;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let (bytes, _) = self.get(at..)?.split_first_chunk::<N>()?;
        Some(*bytes)
    }

    fn is_at_least(&self, len: usize) -> bool {
        self.len() >= len
    }
}
