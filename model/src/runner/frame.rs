//! A packet as a vector of octets.

use kuafu_pipeline::{Frame, Shim};

/// Octets in an Ethernet header.
const ETHERNET: usize = 14;

/// A frame in userland.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VecFrame {
    octets: Vec<u8>,
    headroom: usize,
    segment: u32,
    /// What was sent beside it; `None`: nothing can be.
    copies: Option<Vec<(u32, Vec<u8>)>>,
}

impl VecFrame {
    /// Octets in front of a packet that XDP may use, as Linux has them.
    pub const HEADROOM: usize = 256 - 40;

    /// A frame of these octets, from the Ethernet header on.
    #[must_use]
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self {
            octets: octets.into(),
            headroom: Self::HEADROOM,
            segment: 0,
            copies: None,
        }
    }

    /// The same where the kernel makes copies: out of any interface.
    #[must_use]
    pub fn copied(mut self) -> Self {
        self.copies = Some(Vec::new());
        self
    }

    /// The copies that were sent, each with its interface, taken out.
    pub fn take_copies(&mut self) -> Vec<(u32, Vec<u8>)> {
        self.copies.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The same as an offload packet, to be cut into segments with so many octets of payload.
    #[must_use]
    pub const fn segmented(mut self, segment: u32) -> Self {
        self.segment = segment;
        self
    }

    /// The same with other room in front.
    #[must_use]
    pub const fn with_headroom(mut self, headroom: usize) -> Self {
        self.headroom = headroom;
        self
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Its octets, taken out.
    #[must_use]
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

impl Frame for VecFrame {
    fn len(&self) -> u32 {
        u32::try_from(self.octets.len()).unwrap_or(u32::MAX)
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.octets.first_chunk_mut()
    }

    fn words(&mut self, at: u32) -> [u64; 5] {
        let rest = self.octets.get(at as usize..).unwrap_or_default();
        let octet = |index: usize| rest.get(index).copied().unwrap_or(0);
        std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| octet(word * 8 + byte))))
    }

    fn push<S: Shim>(&mut self) -> bool {
        let more = S::LEN as usize;
        if more > self.headroom {
            return false;
        }
        self.headroom -= more;
        // Octets that no stage may read before it has written them.
        self.octets.splice(0..0, std::iter::repeat_n(0xa5, more));
        true
    }

    fn pull<S: Shim>(&mut self) -> bool {
        let less = S::LEN as usize;
        if less + ETHERNET > self.octets.len() {
            return false;
        }
        self.headroom += less;
        self.octets.drain(..less);
        true
    }

    fn send_copy(&mut self, interface: u32) -> bool {
        let copies = self.copies.as_mut();
        copies
            .map(|copies| copies.push((interface, self.octets.clone())))
            .is_some()
    }

    fn resize(&mut self, len: u32) -> bool {
        let len = len as usize;
        if len < ETHERNET {
            return false;
        }
        self.octets.resize(len, 0);
        self.segment = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuafu_pipeline::frame::Vxlan;

    #[test]
    fn what_is_pushed_is_pulled() {
        let octets: Vec<u8> = (0..100).collect();
        let mut frame = VecFrame::new(octets.clone());
        assert!(frame.push::<Vxlan>());
        assert_eq!(frame.len(), 150);
        assert_eq!(frame.octets()[50..], octets);
        assert!(frame.pull::<Vxlan>());
        assert_eq!(frame.octets(), octets);
        assert!(!VecFrame::new([0; 63]).pull::<Vxlan>());
        assert!(!VecFrame::new([0; 63]).with_headroom(49).push::<Vxlan>());
    }

    #[test]
    fn words_beyond_the_end_are_zero() {
        let mut frame = VecFrame::new([1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(frame.words(0)[0], 0x0807_0605_0403_0201);
        assert_eq!(frame.words(0)[1..], [9, 0, 0, 0]);
        assert_eq!(frame.words(9), [0; 5]);
    }
}
