//! A world on one machine: namespace hosts and a WAN from a measured matrix.
