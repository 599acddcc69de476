//! A server: it gets no new connections.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::bail;
use kuafu_model::kinds::{self, Kind, Name, ObjectRef, Service};
use kuafu_model::manifest::Intent;
use kuafu_proto::v1::{ClusterStatus, GetRequest, HostEntry, ManifestFile};
use serde_json::{Value, json};

use super::{Drain, Left};
use crate::ask::Controller;

/// A server's address, and its port where only that one is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Server {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = text.parse().map(|address| Self { address, port: None });
        let with_port = || {
            let end: SocketAddr = text.parse()?;
            let port = Some(end.port());
            Ok(Self {
                address: end.ip(),
                port,
            })
        };
        whole.or_else(|_| with_port()).map_err(|_: std::net::AddrParseError| {
            format!(
                "{text} is no server; expected an address, with or without a port, such as 198.51.100.7:2342 or \
                 [2001:db8::7]:2342"
            )
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

impl Server {
    /// Whether a target is it, as manifests declare one.
    fn is(&self, target: &Value) -> bool {
        let port = target.get("port").and_then(Value::as_u64);
        target.get("address").and_then(Value::as_str) == Some(&self.address.to_string())
            && self.port.is_none_or(|own| port == Some(own.into()))
    }
}

/// The services that have it as a target, as they are declared, but for its drain.
pub(super) async fn declared(
    controller: &mut Controller,
    server: &Server,
    drain: Drain,
) -> anyhow::Result<Vec<ManifestFile>> {
    let request = GetRequest {
        kind: Kind::Service.word().to_owned(),
        name: String::new(),
    };
    let answer = controller.api.get(request).await;
    let objects = match serde_json::from_str(&controller.unwrap(answer)?.json)? {
        Value::Array(objects) => objects,
        object => vec![object],
    };
    let mut networks = BTreeSet::new();
    let mut files = Vec::new();
    for object in objects {
        let network = network(&object);
        if let Some(file) = with_drain(object, server, drain) {
            networks.insert(network);
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!(undeclared(&controller.intent().await?, server));
    }
    if let [one, another, ..] = &networks.into_iter().collect::<Vec<_>>()[..] {
        bail!(
            "{server} is a server of its own in {one} and in {another}: set drain: true of the one that is meant, in its \
             service's manifest"
        );
    }
    Ok(files)
}

/// The network in which a service's targets have their addresses.
fn network(service: &Value) -> String {
    match service.pointer("/spec/vpc").and_then(Value::as_str) {
        Some(vpc) => format!("vpc/{vpc}"),
        None => "the underlay".to_owned(),
    }
}

/// Why no service that is declared here has it among its declared targets.
fn undeclared(intent: &Intent, server: &Server) -> String {
    let is_it = |target: &kinds::Target| {
        let port = target.port.map(kinds::PortNumber::get);
        target.address.get() == server.address && server.port.is_none_or(|own| port == Some(own))
    };
    let mut services = intent.services().values();
    let selected = services.find_map(|service| {
        let mut targets = intent.targets(service).into_owned().into_iter();
        let (what, node) = selected(intent, service, server.address)?;
        targets
            .any(|target| is_it(&target))
            .then_some((service, what, node))
    });
    match selected {
        Some((service, what, node)) => {
            let (service, at) = (&service.metadata.name, ObjectRef::new(Kind::Node, node));
            let drain = if what == at {
                format!("drain that (kuafu drain {at})")
            } else {
                format!("drain the node that it is on (kuafu drain {at})")
            };
            format!(
                "{server} is a target of service/{service} as {what}, by its labels: {drain}, or declare it among the targets \
                 too"
            )
        }
        None => format!(
            "no service has the target {server}; kuafu get service -o yaml shows what each has. One that a scaling hook has \
             named drains when the hook leaves it out"
        ),
    }
}

/// The node, or the port, of this address that a service selects, and the node where that is.
fn selected<'a>(intent: &'a Intent, service: &Service, address: IpAddr) -> Option<(ObjectRef, &'a Name)> {
    let select = service.spec.select.as_ref()?;
    if let Some(vpc) = &service.spec.vpc {
        let mut ports = intent.ports().values();
        let port =
            ports.find(|port| port.spec.vpc == *vpc && IpAddr::V4(port.spec.address.get()) == address)?;
        let what = ObjectRef::new(Kind::Port, &port.metadata.name);
        return select
            .takes(&port.metadata.labels)
            .then_some((what, &port.spec.node));
    }
    let mut nodes = intent
        .nodes()
        .iter()
        .filter(|(_, node)| select.takes(&node.metadata.labels));
    let (name, _) = nodes.find(|(_, node)| IpAddr::V4(node.spec.address.local.get()) == address)?;
    Some((ObjectRef::new(Kind::Node, name), name))
}

/// A service whose target this server is, with its drain as it shall be.
fn with_drain(mut object: Value, server: &Server, drain: Drain) -> Option<ManifestFile> {
    let targets = object.pointer_mut("/spec/targets")?.as_array_mut()?;
    let mut found = false;
    for target in targets.iter_mut().filter(|target| server.is(target)) {
        let target = target.as_object_mut()?;
        target.retain(|field, _| field != "drain" && field != "drain_until");
        if let Drain::On(until) = drain {
            target.insert("drain".to_owned(), json!(true));
            target.extend(until.map(|until| ("drain_until".to_owned(), json!(until))));
        }
        found = true;
    }
    let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
    found.then(|| ManifestFile {
        name: format!("service/{name}"),
        text: object.to_string(),
    })
}

/// Its flows, by the hosts that send them.
pub(super) fn left(status: &ClusterStatus, server: &Server) -> Left {
    // Who does not say that it has heard may still send new ones.
    let has_heard = |host: &&HostEntry| {
        host.connected && host.refused.is_empty() && host.status.is_some() && host.acked == host.revision
    };
    let hosts = status.hosts.iter().filter(|host| !host.foreign);
    let silent: Vec<String> = hosts
        .filter(|host| !has_heard(host))
        .map(|host| host.node.clone())
        .collect();
    let hosts = status.hosts.iter().filter_map(|host| host.status.as_ref());
    let draining = hosts.flat_map(|host| &host.draining).filter(|draining| {
        draining.address == server.address.to_string()
            && server.port.is_none_or(|port| draining.port == u32::from(port))
    });
    Left {
        count: draining.map(|draining| draining.flows).sum(),
        what: format!("flows with {server}"),
        gone: format!("{server} has no flow any more."),
        advice: if silent.is_empty() {
            "they go on until they end, or until the deadline where there is one (--deadline)"
        } else {
            "who has not said so may still send new ones; kuafu status says why"
        },
        silent,
    }
}

#[cfg(test)]
mod tests {
    use kuafu_model::kinds::Moment;
    use kuafu_model::manifest::File;
    use kuafu_proto::v1::{Draining, HostStatus};

    use super::*;

    fn service(targets: Value) -> Value {
        json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"targets": targets}})
    }

    #[test]
    fn a_server_is_drained_in_each_service_that_has_it() {
        let targets = json!([{"address": "192.0.2.7", "port": 80}, {"address": "192.0.2.8", "port": 80}]);
        let of = |server: &str, drain| -> Option<Value> {
            let file = with_drain(service(targets.clone()), &server.parse().unwrap(), drain)?;
            let object: Value = serde_json::from_str(&file.text).unwrap();
            Some(object["spec"]["targets"].clone())
        };
        let drained = json!([{"address": "192.0.2.7", "port": 80, "drain": true}, {"address": "192.0.2.8", "port": 80}]);
        let on = Drain::On(None);
        assert_eq!(of("192.0.2.7", on), Some(drained.clone()));
        assert_eq!(of("192.0.2.7:80", on), Some(drained));
        assert_eq!(of("192.0.2.7:81", on), None);
        assert_eq!(of("192.0.2.9", on), None);
        let six = service(json!([{"address": "2001:db8::9"}]));
        let of_six = |server: &str| with_drain(six.clone(), &server.parse().unwrap(), on);
        assert!(of_six("2001:db8:0::9").unwrap().text.contains("drain"));
        assert!(of_six("[2001:db8::9]:80").is_none());
        let until = of("192.0.2.7", Drain::On(Moment::new(1_796_104_800)));
        let until = until.unwrap().get(0).unwrap().clone();
        assert_eq!(until["drain_until"], "2026-12-01T06:00:00Z");
        let undone = with_drain(service(json!([until])), &"192.0.2.7".parse().unwrap(), Drain::Off).unwrap();
        assert!(!undone.text.contains("drain"), "{}", undone.text);
    }

    #[test]
    fn one_that_is_selected_is_drained_as_its_node() {
        let all = "kind: Node\nmetadata: {name: web-a, labels: {role: web}}\nspec: {region: a, agent: false, address: {local: \
                   192.0.2.7}}\n---\nkind: Service\nmetadata: {name: web}\nspec: {select: {labels: {role: web}, port: 80}}\n";
        let file = File { name: "t", text: all };
        let intent = Intent::default().apply_files(&[file]).unwrap().intent;
        let of = |server: &str| undeclared(&intent, &server.parse().unwrap());
        assert_eq!(
            of("192.0.2.7"),
            "192.0.2.7 is a target of service/web as node/web-a, by its labels: drain that (kuafu drain node/web-a), or \
             declare it among the targets too"
        );
        assert!(of("192.0.2.7:80").contains("node/web-a"));
        assert!(of("192.0.2.7:81").starts_with("no service has the target 192.0.2.7:81"));
    }

    #[test]
    fn a_port_that_is_selected_is_drained_with_its_node() {
        // The node that runs no agent has the address of another VPC's port.
        let all = "kind: Node\nmetadata: {name: left}\nspec: {region: a, address: {local: 192.0.2.1}}\n---\nkind: \
                   Node\nmetadata: {name: other, labels: {role: web}}\nspec: {region: a, agent: false, address: {local: \
                   10.0.0.7}}\n---\nkind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/24}\n---\nkind: \
                   AddressPool\nmetadata: {name: pool}\nspec: {addresses: [{node: left, public: 203.0.113.9}]}\n---\nkind: \
                   Port\nmetadata: {name: web-a, labels: {role: web}}\nspec: {vpc: red, node: left, address: 10.0.0.7, \
                   interface: a}\n---\nkind: Port\nmetadata: {name: web-b}\nspec: {vpc: red, node: left, address: 10.0.0.8, \
                   interface: b}\n---\nkind: Service\nmetadata: {name: web}\nspec: {pool: pool, listeners: [{protocol: tcp, \
                   port: 80}], mode: vxlan, vpc: red, select: {labels: {role: web}}}\n";
        let file = File { name: "t", text: all };
        let intent = Intent::default().apply_files(&[file]).unwrap().intent;
        let of = |server: &str| undeclared(&intent, &server.parse().unwrap());
        assert_eq!(
            of("10.0.0.7"),
            "10.0.0.7 is a target of service/web as port/web-a, by its labels: drain the node that it is on (kuafu drain \
             node/left), or declare it among the targets too"
        );
        assert!(of("10.0.0.8").starts_with("no service has the target 10.0.0.8"));
    }

    #[test]
    fn what_is_left_is_counted_over_all_hosts() {
        let host = |flows, acked| HostEntry {
            node: "osaka".into(),
            connected: true,
            revision: 7,
            acked,
            status: Some(HostStatus {
                draining: vec![Draining {
                    address: "192.0.2.7".into(),
                    port: 80,
                    flows,
                }],
                ..HostStatus::default()
            }),
            ..HostEntry::default()
        };
        let status = ClusterStatus {
            hosts: vec![host(3, 7), host(4, 6)],
            ..ClusterStatus::default()
        };
        let left_of = |server: &str| left(&status, &server.parse().unwrap());
        assert_eq!(left_of("192.0.2.7").count, 7);
        assert_eq!(left_of("192.0.2.7:81").count, 0);
        assert_eq!(left_of("192.0.2.7").silent, ["osaka"], "who has not acknowledged");
    }
}
