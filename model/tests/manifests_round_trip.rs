//! What is written is read back as the same objects, and nothing that was given is lost on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests state facts")]

use kuafu_model::kinds::Object;
use kuafu_model::manifest::{File, parse, to_json, to_yaml};
use proptest::prelude::*;
use serde_json::{Value, json};

fn objects(text: &str) -> Vec<Object> {
    let manifests = parse(&[File {
        name: "generated",
        text,
    }]);
    let manifests = manifests.unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]));
    manifests
        .iter()
        .map(|manifest| manifest.object().clone())
        .collect()
}

/// Is everything that `given` says said by `written` too?
fn keeps(given: &Value, written: &Value) -> bool {
    match (given, written) {
        (Value::Object(given), Value::Object(written)) => given
            .iter()
            .all(|(key, value)| written.get(key).is_some_and(|written| keeps(value, written))),
        (Value::Array(given), Value::Array(written)) => {
            given.len() == written.len()
                && given
                    .iter()
                    .zip(written)
                    .all(|(given, written)| keeps(given, written))
        }
        (Value::Number(given), Value::Number(written)) => given.as_f64() == written.as_f64(),
        _ => given == written,
    }
}

/// Texts that YAML readers like to take for something else.
fn label() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "on", "no", "~", "null", "1e3", "0x1f", "007", "1:30", ".inf", "- a", "a: b", "#x", "", " ", "*a",
        "\"q\"", "é",
    ];
    prop_oneof![prop::sample::select(KNOWN).prop_map(str::to_owned), "[ -~]{0,20}"]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,20}[a-z0-9])?"
}

fn address() -> impl Strategy<Value = String> {
    (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| format!("{a}.{b}.{c}.{d}"))
}

/// A field that may be left out.
fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::option::of(value).prop_map(|value| value.unwrap_or(Value::Null))
}

/// Without the fields that were left out.
fn given(fields: Value) -> Value {
    match fields {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(k, v)| (k, given(v)))
                .collect(),
        ),
        other => other,
    }
}

fn node() -> impl Strategy<Value = Value> {
    let place =
        (-90.0..=90.0, -180.0..=180.0).prop_map(|(lat, lon)| json!({"latitude": lat, "longitude": lon}));
    let nat = (1024u16..20000, 1024u16..12000).prop_map(|(first, count)| (first, first + count - 1));
    let nat = nat.prop_filter("ports of the node", |(a, b)| {
        ![4789, 6081].iter().any(|port| (a..=b).contains(&port))
    });
    (
        name(),
        maybe(name().prop_map(Value::from)),
        maybe("[A-Z]{2}".prop_map(Value::from)),
        maybe(place),
        (address(), maybe(address().prop_map(Value::from))),
        any::<bool>(),
        nat,
        maybe((0.0..1000.0).prop_map(Value::from)),
    )
        .prop_map(|(region, site, country, coordinates, (local, public), agent, (first, last), price)| {
            json!({"region": region, "site": site, "country": country, "coordinates": coordinates,
                "address": {"local": local, "public": public}, "agent": agent, "price": price, "nat_ports": format!("{first}-{last}")})
        })
}

fn vpc() -> impl Strategy<Value = Value> {
    let cidr = (1u8..=126, any::<u8>()).prop_map(|(a, b)| format!("{a}.{b}.0.0/16"));
    let (vni, mtu) = (
        maybe((2u32..1 << 24).prop_map(Value::from)),
        maybe((576u16..=8950).prop_map(Value::from)),
    );
    (cidr, vni, mtu).prop_map(|(cidr, vni, mtu)| json!({"cidr": cidr, "vni": vni, "mtu": mtu}))
}

fn port() -> impl Strategy<Value = Value> {
    let mac =
        any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| format!("02:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    let interface = "[a-z][a-z0-9_.-]{0,14}".prop_filter("reserved", |name| name != "lo" && name != "kuafu0");
    (name(), name(), address(), maybe(mac.prop_map(Value::from)), maybe(interface.prop_map(Value::from))).prop_map(
        |(vpc, node, address, mac, interface)| {
            json!({"vpc": vpc, "node": node, "address": address, "mac": mac, "interface": interface})
        },
    )
}

fn pool() -> impl Strategy<Value = Value> {
    let several = prop::collection::btree_set(name(), 2..4).prop_map(|names| json!({"nodes": names}));
    let one = || name().prop_map(|name| json!({"node": name}));
    let ways = prop_oneof![
        Just(json!({"reach": "routed"})),
        Just(json!({"reach": "arp"})),
        hook().prop_map(|hook| json!({"reach": "hook", "hook": hook})),
        bgp().prop_map(|bgp| json!({"reach": "bgp", "bgp": bgp})),
    ];
    let carriers = prop::collection::vec((one(), prop_oneof![one(), several]), 1..5);
    let addresses = prop::collection::vec((address(), maybe(address().prop_map(Value::from))), 5);
    let one_of = |words: &'static [&'static str]| maybe(prop::sample::select(words).prop_map(Value::from));
    let packets = (
        one_of(&["forward", "drop", "pass"]),
        one_of(&["drop", "pass"]),
        one_of(&["reply", "drop", "pass"]),
    );
    let packets = packets.prop_map(|(fragments, options, echo)| {
        given(json!({"fragments": fragments, "ipv4_options": options, "echo": echo, "oversize": "drop"}))
    });
    (ways, carriers, addresses, maybe(packets)).prop_map(|(mut pool, carriers, addresses, packets)| {
        let is_routed = pool["reach"] == "routed";
        let carriers = carriers
            .into_iter()
            .map(|(one, any)| if is_routed { one } else { any });
        let address = |(mut carriers, (public, local)): (Value, (String, Value))| {
            carriers["public"] = json!(public);
            carriers["local"] = local;
            given(carriers)
        };
        pool["addresses"] = carriers.zip(addresses).map(address).collect();
        pool["packets"] = packets;
        given(pool)
    })
}

fn hook() -> impl Strategy<Value = Value> {
    let command = "(/[!-~&&[^/]]{1,20}){1,4}";
    (command, maybe((1u16..=600).prop_map(Value::from)))
        .prop_map(|(command, timeout)| given(json!({"command": command, "timeout_s": timeout})))
}

fn bgp() -> impl Strategy<Value = Value> {
    let community = any::<(u16, u16)>().prop_map(|(high, low)| format!("{high}:{low}"));
    let communities = prop::collection::btree_set(community, 1..4).prop_map(Value::from_iter);
    let multihop = maybe((1u8..).prop_map(Value::from));
    let file = maybe("(/[!-~&&[^/]]{1,20}){1,4}".prop_map(Value::from));
    let peer = (1u32..u32::MAX, multihop, file);
    (
        1u32..u32::MAX,
        prop::collection::btree_map(address(), peer, 1..4),
        maybe(communities),
        maybe(any::<u32>().prop_map(Value::from)),
        // Not the default, which is left out.
        maybe((1u16..=178).prop_map(Value::from)),
        prop_oneof![Just(Value::Null), daemon_frr().boxed()],
    )
        .prop_map(|(number, peers, communities, med, port, frr)| {
            let peer = |(address, (number, multihop, file))| {
                given(json!({"address": address, "as": number, "multihop": multihop, "password_file": file}))
            };
            let peers: Vec<Value> = peers.into_iter().map(peer).collect();
            given(
                json!({"as": number, "peers": peers, "communities": communities, "med": med, "port": port,
                "daemon": frr["daemon"], "bfd": frr["bfd"]}),
            )
        })
}

fn daemon_frr() -> impl Strategy<Value = Value> {
    let bfd = (50u16..=60_000, 2u8..)
        .prop_map(|(interval, multiplier)| json!({"interval_ms": interval, "multiplier": multiplier}));
    maybe(bfd).prop_map(|bfd| json!({"daemon": "frr", "bfd": bfd}))
}

fn service() -> impl Strategy<Value = Value> {
    // Not the default, which is left out.
    let weight = || {
        maybe(
            (0u16..=1000)
                .prop_filter("the default", |weight| *weight != 1)
                .prop_map(Value::from),
        )
    };
    let drain = prop_oneof![
        Just((Value::Null, Value::Null)),
        Just((json!(true), Value::Null)),
        Just((json!(true), json!("2026-12-01T06:00:00Z"))),
    ];
    let place = || maybe(name().prop_map(Value::from));
    let target = (
        maybe((1u16..).prop_map(Value::from)),
        weight(),
        drain,
        place(),
        place(),
    );
    let select = maybe(
        ("[a-z]{1,8}", maybe((1u16..).prop_map(Value::from)), weight()).prop_map(|(value, port, weight)| {
            given(json!({"labels": {"role": value}, "port": port, "weight": weight}))
        }),
    );
    let prefer = maybe(prop::sample::select(&["site", "region"][..]).prop_map(Value::from));
    let targets = prop::collection::btree_map(address(), target, 1..4);
    let affinity = maybe(prop::sample::select(&["client", "port"][..]).prop_map(Value::from));
    // A shield and an affinity need a pool, and that a listener.
    let own = prop_oneof![
        Just(json!({})),
        (name(), 1u16.., maybe(shield()), affinity).prop_map(|(pool, port, shield, affinity)| {
            let listeners = json!([{"protocol": "tcp", "port": port}]);
            json!({"pool": pool, "listeners": listeners, "shield": shield, "affinity": affinity})
        }),
    ];
    let which = (targets, select, prefer);
    (which, maybe(health()), own).prop_map(|((targets, select, prefer), health, mut own)| {
        let target = |(address, (port, weight, (drain, until), region, site))| {
            given(json!({
                "address": address, "port": port, "weight": weight, "drain": drain, "drain_until": until,
                "region": region, "site": site
            }))
        };
        own["select"] = select;
        own["prefer"] = prefer;
        let targets: Vec<Value> = targets.into_iter().map(target).collect();
        own["targets"] = targets.into();
        own["health"] = health;
        given(own)
    })
}

fn shield() -> impl Strategy<Value = Value> {
    let rate = || maybe((1u32..=100_000_000).prop_map(Value::from));
    let hold = maybe((1u32..=3600).prop_map(Value::from));
    let mode = prop_oneof![
        prop::sample::select(&["off", "observe", "on"][..]).prop_map(|mode| json!({"mode": mode})),
        (maybe(Just(json!("automatic"))), rate(), hold)
            .prop_map(|(mode, alarm, hold)| json!({"mode": mode, "alarm_new_per_s": alarm, "hold_s": hold})),
    ];
    let lists = |word: &'static str| {
        let names = prop::collection::btree_set(name(), 1..4);
        maybe(names.prop_map(move |names| names.iter().map(|name| format!("{word}-{name}")).collect()))
    };
    let is = || maybe(any::<bool>().prop_map(Value::from));
    let admission = maybe(prop::sample::select(&["open", "required"][..]).prop_map(Value::from));
    (
        mode,
        [rate(), rate(), rate()],
        [is(), is()],
        (lists("b"), lists("a")),
        admission,
    )
        .prop_map(
            |(mut shield, [source, prefix, budget], [cookies, amplifiers], (block, allow), admission)| {
                shield["source_new_per_s"] = source;
                shield["prefix_new_per_s"] = prefix;
                shield["new_per_s"] = budget;
                shield["syn_cookies"] = cookies;
                shield["drop_amplifiers"] = amplifiers;
                shield["block"] = block;
                shield["allow"] = allow;
                shield["admission"] = admission;
                given(shield)
            },
        )
}

fn prefix_list() -> impl Strategy<Value = Value> {
    let prefix = (any::<u32>(), 0u32..=32).prop_map(|(address, length)| {
        let network = u64::from(address) >> (32 - length) << (32 - length);
        format!(
            "{}/{length}",
            std::net::Ipv4Addr::from(u32::try_from(network).unwrap())
        )
    });
    prop::collection::btree_set(prefix, 1..6).prop_map(|prefixes| json!({"prefixes": prefixes}))
}

fn health() -> impl Strategy<Value = Value> {
    // With a port: what a listener serves does not matter then.
    let common = (
        1u16..,
        100u32..=300_000,
        maybe((20u32..=100).prop_map(Value::from)),
        1u8..=20,
        // Not the default, which is left out.
        1u8..=100,
    );
    let octets = "(hex:([0-9a-fA-F]{2}){1,20}|[a-z][ -~]{0,20})";
    let asks = prop_oneof![
        prop::sample::select(&["tcp", "a2s", "quake3", "minecraft"][..]).prop_map(|kind| json!({"type": kind})),
        ("https?", "/[a-z0-9?=&/]{0,20}", 100u16..=300, 300u16..=599).prop_map(
            |(kind, path, first, last)| json!({"type": kind, "path": path, "status": format!("{first}-{last}")})
        ),
        (octets, octets).prop_map(|(send, expect)| json!({"type": "udp", "send": send, "expect": expect})),
        (name(), name()).prop_map(|(alpn, host)| json!({"type": "quic", "alpn": alpn, "host": host})),
        name().prop_map(|service| json!({"type": "grpc", "service": service})),
    ];
    (common, asks).prop_map(|((port, interval, timeout, streak, percent), mut ask)| {
        ask["port"] = port.into();
        ask["interval_ms"] = interval.into();
        ask["timeout_ms"] = timeout;
        ask["rise"] = streak.into();
        ask["fall"] = streak.into();
        ask["min_healthy_percent"] = percent.into();
        ask["slow_start_s"] = interval.min(900).into();
        given(ask)
    })
}

fn accelerator() -> impl Strategy<Value = Value> {
    let listeners = prop::collection::btree_set((prop::sample::select(&["tcp", "udp"][..]), 1u16..), 1..5);
    let entries = prop::collection::btree_set(name(), 1..4).prop_map(Value::from_iter);
    let class = prop::sample::select(&["game", "voice", "bulk"][..]);
    (
        name(),
        maybe(entries),
        listeners,
        (name(), name(), 0u8..=100),
        class,
        (5u32..=3600, 60u32..=86400),
        maybe((1u32..=100_000).prop_map(Value::from)),
        maybe(shield()),
    )
        .prop_map(
            |(pool, entries, listeners, (service, region, dial), class, (udp_s, tcp_s), mbps, shield)| {
                let listeners: Vec<Value> = listeners
                    .into_iter()
                    .map(|(protocol, port)| json!({"protocol": protocol, "port": port}))
                    .collect();
                json!({"pool": pool, "entries": entries, "listeners": listeners, "class": class,
                "groups": [{"service": service, "region": region, "dial": dial}],
                "idle_timeout": {"udp_s": udp_s, "tcp_s": tcp_s}, "bandwidth_mbps": mbps,
                "shield": shield,
                "relays": {"never": {"countries": ["AQ"]}, "only": {"providers": ["one", "two"]}, "strict": false}})
            },
        )
}

fn object() -> impl Strategy<Value = Value> {
    let of = |kind: &'static str| move |spec: Value| (kind, given(spec));
    let spec = prop_oneof![
        node().prop_map(of("Node")),
        vpc().prop_map(of("Vpc")),
        port().prop_map(of("Port")),
        pool().prop_map(of("AddressPool")),
        prefix_list().prop_map(of("PrefixList")),
        service().prop_map(of("Service")),
        accelerator().prop_map(of("Accelerator")),
    ];
    let labels = prop::collection::btree_map("[a-zA-Z0-9._/-]{1,20}", label(), 0..4);
    (name(), labels, spec).prop_map(|(name, labels, (kind, spec))| {
        let labels = if labels.is_empty() {
            Value::Null
        } else {
            json!(labels)
        };
        json!({"kind": kind, "metadata": given(json!({"name": name, "labels": labels})), "spec": spec})
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: prop::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn objects_are_read_back_as_they_were(written in prop::collection::vec(object(), 0..6)) {
        let first = objects(&Value::from(written.clone()).to_string());
        let (yaml, json) = (to_yaml(&first).unwrap(), to_json(&first).unwrap());
        prop_assert_eq!(&objects(&yaml), &first, "{}", yaml);
        prop_assert_eq!(&objects(&json), &first, "{}", json);
        for (given, object) in written.iter().zip(&first) {
            let object = serde_json::to_value(object).unwrap();
            prop_assert!(keeps(given, &object), "{} became {}", given, object);
        }
    }

    /// Whatever the text, the parser ends, and every error names a line of it.
    #[test]
    fn any_text_is_read_or_refused(text in "(\\PC|[\\n:{}\\[\\]&*-]){0,200}") {
        if let Err(errors) = parse(&[File { name: "any", text: &text }]) {
            let lines = u32::try_from(text.lines().count()).unwrap();
            prop_assert!(errors.iter().all(|error| (1..=lines + 1).contains(&error.line)), "{:?}", errors);
        }
    }
}
