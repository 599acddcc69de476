//! The programs: lists of stages, each with the place where it attaches.
//!
//! | program | attaches | packets |
//! |---|---|---|
//! | [`edge`](edge::run) | XDP on the underlay | backbone, services, the exit's ports |
//! | [`underlay`](underlay::run) | tcx ingress on the underlay | VXLAN |
//! | [`port`](port::run) | tcx ingress on a port's host side | what a VM, a container or the prober sends |

pub mod edge;
mod edge_v6;
pub mod port;
pub mod underlay;
