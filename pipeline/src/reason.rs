//! Names of everything that is counted: why packets are dropped, and what is done with the others.

/// Defines an enum whose variants have a number and a word.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $number:literal, $word:literal; )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $( $(#[doc = $doc])+ $variant = $number, )+ }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The word that counters, command line, metrics and documentation use.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// What it means, as the documentation prints it.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$variant => concat!($($doc,)+), )+ }
            }

            /// The one with this word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

words! {
    /// Why a packet was dropped. Numbers are append-only; wire and JSON carry the word.
    Reason {
        /// The frame ends before the headers that it announces.
        Truncated = 0, "truncated";
        /// A length field contradicts the frame or the header before it.
        BadLength = 1, "bad_length";
        /// The IPv4 header's checksum is wrong.
        BadChecksum = 2, "bad_checksum";
        /// An IPv4 header with options, addressed to a service or sent by a port that must not use them.
        IpOptions = 3, "ip_options";
        /// A fragment whose first one, which has the ports, was not seen in the last 5 seconds, or that breaks up the
        /// transport's header.
        Fragment = 4, "fragment";
        /// A source address that no sender on the Internet can have (RFC 6890), or one's own.
        Martian = 5, "martian";
        /// TCP flags that no connection sends together, or a data offset outside the segment.
        BadTcp = 6, "bad_tcp";
        /// The address is Kuafu's, but nothing listens on that protocol and port.
        NoListener = 7, "no_listener";
        /// The service's ring is empty.
        NoTarget = 8, "no_target";
        /// Larger than the path carries; the sender was told so (RFC 1191).
        TooBig = 9, "too_big";
        /// Larger than the path carries, and the sender forbids nothing, but nobody is there to fragment it.
        NeedsFragmentation = 10, "needs_fragmentation";
        /// An answer of ours was due, but the bucket for ICMP is empty.
        IcmpLimited = 11, "icmp_limited";
        /// Time to live is used up.
        Ttl = 12, "ttl";
        /// The link-layer address of the next hop is not known (yet).
        NoNeighbour = 13, "no_neighbour";
        /// The host has no route to the destination.
        NoRoute = 14, "no_route";
        /// A port sent from an address that is not its own.
        Spoofed = 15, "spoofed";
        /// Broadcast or multicast inside a VPC.
        Multicast = 16, "multicast";
        /// IPv6 inside a VPC.
        Ipv6NotYet = 17, "ipv6_not_yet";
        /// Neither ARP nor IP inside a VPC.
        UnknownProtocol = 18, "unknown_protocol";
        /// An ARP message that is no request for an address of the VPC.
        ArpUnanswered = 19, "arp_unanswered";
        /// No endpoint of the VPC has the destination address.
        NoEndpoint = 20, "no_endpoint";
        /// VXLAN whose header breaks RFC 7348.
        BadVxlan = 21, "bad_vxlan";
        /// VXLAN from a host that does not serve this VPC.
        UnknownVtep = 22, "unknown_vtep";
        /// Geneve whose header or option is not Kuafu's.
        BadGeneve = 23, "bad_geneve";
        /// The label names no path here.
        NoPath = 24, "no_path";
        /// The sender is not the previous node of the path.
        WrongSource = 25, "wrong_source";
        /// The tag under the leg's key does not fit the header.
        BadTag = 26, "bad_tag";
        /// The sequence number (or the probe's) was seen before.
        Duplicate = 27, "duplicate";
        /// The sequence number is older than the window.
        Late = 28, "late";
        /// Sent under an incarnation of the entry that has ended.
        OldIncarnation = 29, "old_incarnation";
        /// The exit's port range for this endpoint is used up.
        PortsExhausted = 30, "ports_exhausted";
        /// No connection of the exit fits this answer.
        NoConnection = 31, "no_connection";
        /// The table of connections is full.
        ConnectionsFull = 32, "connections_full";
        /// A probe that breaks its format or has no path back.
        BadProbe = 33, "bad_probe";
        /// A port handed over a packet for a path that is not installed, or in a form that no path carries.
        NotAProbe = 34, "not_a_probe";
        /// The runner could not grow or shrink the packet.
        NoRoom = 35, "no_room";
        /// More than the accelerator's `bandwidth_mbps` lets pass here in this direction.
        OverLimit = 36, "over_limit";
        /// From a source on one of the service's `block` lists.
        Blocked = 37, "blocked";
        /// The service wants admitted clients alone, and this one is none.
        NotAdmitted = 38, "not_admitted";
        /// More new flows than the shield allows one source, or the /24 that it is in.
        SourceLimited = 39, "source_limited";
        /// More new flows than the shield allows the service; who has begun more than others is refused first. Or an
        /// ICMP error about a flow that is not known, while the shield is up.
        OverBudget = 40, "over_budget";
        /// UDP from a port that amplifiers answer from (DNS, NTP, SSDP …), of no flow that is known.
        Amplifier = 41, "amplifier";
        /// From a source that is not verified, in the midst of a TCP connection that is not known, to a server whose
        /// connections are opened here.
        Unverified = 42, "unverified";
    }
}

words! {
    /// What was done with packets that were not dropped.
    Event {
        /// Encapsulated in VXLAN to another host.
        VxlanSent = 0, "vxlan_sent";
        /// Taken out of VXLAN and handed to a port.
        VxlanReceived = 1, "vxlan_received";
        /// Handed from one port to another of the same host.
        DeliveredLocally = 2, "delivered_locally";
        /// An ARP request or a neighbour solicitation, answered.
        ArpAnswered = 3, "arp_answered";
        /// A client's packet, sent over the backbone.
        Entered = 4, "entered";
        /// Passed on to the next node of its path.
        Relayed = 5, "relayed";
        /// A client's packet, sent on to its endpoint.
        Exited = 6, "exited";
        /// An endpoint's answer, sent over the backbone.
        Returned = 7, "returned";
        /// An answer, sent on to its client.
        Emitted = 8, "emitted";
        /// A connection begun at the exit.
        ConnectionOpened = 9, "connection_opened";
        /// A packet that left its stale primary path for the backup and made the pair stay there.
        FailedOver = 10, "failed_over";
        /// A probe that was stamped, tagged and sent.
        ProbeSent = 11, "probe_sent";
        /// A probe that was sent back where it came from.
        ProbeReflected = 12, "probe_reflected";
        /// A probe that came home.
        ProbeReturned = 13, "probe_returned";
        /// A probe that came home but found no room in the sample ring.
        SampleLost = 14, "sample_lost";
        /// Handed over to be sent over both paths of its pair.
        HandedOver = 15, "handed_over";
        /// A second copy of a packet, sent over the other path of its pair.
        Duplicated = 16, "duplicated";
        /// A copy of a packet that had arrived over the other path of its pair: it has done its work.
        SecondCopy = 17, "second_copy";
        /// Handed to the prober, which sends it over the backbone in fragments: a packet too large for a path that does
        /// not forbid it, or a fragment that must not overtake the first one of its datagram.
        Fragmented = 18, "fragmented";
        /// A flow to a service whose target is remembered from now on: with its second packet.
        Tracked = 19, "tracked";
        /// The same, but the table is full: it follows the ring.
        NotTracked = 20, "not_tracked";
        /// An echo request to a service, answered.
        EchoAnswered = 21, "echo_answered";
        /// A health check of this host's, sent to a server that answers its clients itself.
        CheckSent = 22, "check_sent";
        /// A SYN from a source that is not verified, answered with a cookie.
        SynChallenged = 23, "syn_challenged";
        /// A cookie that came back: its source may begin connections.
        SourceVerified = 24, "source_verified";
        /// What a shield would have done, had it been on.
        Observed = 25, "observed";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_words_unique() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_word(reason.word()), Some(*reason));
        }
        for (number, event) in Event::ALL.iter().enumerate() {
            assert_eq!(*event as usize, number);
            assert_eq!(Event::from_word(event.word()), Some(*event));
        }
    }
}
