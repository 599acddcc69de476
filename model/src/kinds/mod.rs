//! The kinds: what a user may declare, as types that can only hold what is allowed.
//!
//! A manifest is parsed once, by [`crate::manifest`]; nothing behind it checks a value again. Each kind has a
//! file with its spec, its defaults and how it is read. What concerns several objects at once (a reference, an
//! address that two ports claim) is checked when manifests are applied to an [`Intent`](crate::manifest::Intent).
//!
//! ```
//! use kuafu_model::{kinds::Object, manifest};
//!
//! let text = "kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/16}\n";
//! let manifests = manifest::parse(&[manifest::File { name: "red.yaml", text }]).unwrap();
//! let Object::Vpc(vpc) = manifests[0].object() else { panic!() };
//! assert_eq!(vpc.spec.cidr.to_string(), "10.0.0.0/16");
//!
//! let wrong = text.replace("0.0/16", "0.5/16");
//! let errors = manifest::parse(&[manifest::File { name: "red.yaml", text: &wrong }]).unwrap_err();
//! assert_eq!(
//!     errors[0].to_string(),
//!     "red.yaml:3: spec.cidr: 10.0.0.5/16 has bits set outside its prefix; did you mean 10.0.0.0/16?",
//! );
//! ```

mod accelerator;
mod address_pool;
mod common;
mod health;
mod host_prefix;
mod listener;
mod name;
mod network;
mod node;
mod object;
mod policy;
mod port;
mod prefix_list;
mod quic;
mod reach;
mod scaling;
mod service;
mod shield;
mod vpc;

pub use accelerator::{
    Accelerator, AcceleratorSpec, Bandwidth, Class, Dial, Duplication, Group, IdleTimeout, Liveness, Places,
    RelayRules, TcpIdle, UdpIdle,
};
pub use address_pool::{AddressPool, AddressPoolSpec, Carriers, PoolAddress, PoolEntry};
pub use common::{Invalid, Moment};
pub(crate) use common::{Text, quoted};
pub use health::{
    CheckKind, Health, Interval, Payload, Percent, SlowStart, Statuses, Streak, Timeout, UrlPath, Word,
};
pub use host_prefix::HostPrefix;
pub use listener::Listener;
pub(crate) use listener::MOST_ENTRIES;
pub use name::{Labels, Metadata, Name};
pub use network::{Cidr, HostAddress, HostIp, InterfaceName, Mac, Mtu, PortNumber, PortRange, Protocol, Vni};
pub use node::{Coordinates, Country, NatPorts, Node, NodeAddress, NodeSpec};
pub use object::{Kind, Object, ObjectRef, Resource};
pub use policy::{Affinity, Echo, Fragments, Options, Oversize, PacketPolicy};
pub use port::{Port, PortSpec};
pub use prefix_list::{PrefixList, PrefixListSpec};
pub use quic::{ConfigNumber, ConnectionIds, IdLayout, IdOctets};
pub use reach::{
    AsNumber, Bfd, BfdInterval, BfdMultiplier, Bgp, BgpDaemon, BgpPeer, CommandPath, Community, FilePath,
    Hook, HookTimeout, Med, Multihop, Reach,
};
pub use scaling::{
    CallInterval, CallTimeout, Cooldown, DrainTime, FlowsPerTarget, HookUrl, Scaling, ScalingHook,
    TargetCount,
};
pub(crate) use service::MOST_TARGETS;
pub use service::{Gue, Mode, Prefer, Select, ServerId, Service, ServiceSpec, Target, Variant, Weight};
pub use shield::{Admission, Hold, NewFlows, Shield, ShieldMode};
pub use vpc::{Vpc, VpcSpec};
