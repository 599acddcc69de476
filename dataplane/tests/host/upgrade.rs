//! A host between layouts: what its maps hold goes along, and no packet is lost.

use std::net::Ipv4Addr;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use kuafu_dataplane::bpf::{Bpf, Pins, Sizes};
use kuafu_pipeline::map::{Be16, Connection, ConnectionKey, IpKey, PairState, Slot, Window};

use super::site::{Site, answered, opened, sites, until_they_talk, with_echo};

/// The object of the layout before: health checks are not counted.
static PREVIOUS: &[u8] = aya::include_bytes_aligned!("../data/kuafu-v5.o");
const PREVIOUS_LAYOUT: u32 = 5;
/// How far a lane is put forward by each step.
const ADVANCE: u64 = 1 << 20;

fn connection() -> (ConnectionKey, Connection) {
    let address = |last| IpKey::v4(u32::from(Ipv4Addr::new(192, 0, 2, last)));
    let ports = [Be16::new(5), Be16::new(7000)];
    let key = ConnectionKey::new(9, [address(7), address(8)], ports, 17);
    let value = Connection::new(9, 1, &key.turned_round(9), 77);
    (key, value)
}

/// Works while datagrams go to and fro; each must be answered.
fn meanwhile(client: &UdpSocket, first: u32, work: impl FnOnce() + Send) -> u32 {
    let done = AtomicBool::new(false);
    let mut number = first;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            work();
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            assert!(answered(client, number), "datagram {number} is lost");
            number += 1;
        }
    });
    number
}

fn layouts(site: &Site) -> Vec<String> {
    let folder = std::fs::read_dir(site.pins().folder()).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut layouts: Vec<String> = names.filter(|name| name.starts_with('v')).collect();
    layouts.sort();
    layouts
}

#[test]
fn an_upgrade_over_another_layout_takes_everything_along() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("upgrade");
    let [mut one, mut two] = opened(&sites);
    with_echo(&sites, |client| {
        until_they_talk(&sites, [&mut one, &mut two], client);
        let (contents, incarnation) = (one.contents().clone(), one.incarnation());
        let (pair, window) = (PairState::new(), Window::new());
        pair.lanes[3].set(1_000);
        window
            .admit(&kuafu_pipeline::map::SingleThreaded, 1, 3, 4_321)
            .unwrap();
        let maps = one.maps();
        maps.pair_states.set(&5, &pair).unwrap();
        maps.windows.set(&6, &window).unwrap();
        let (key, opened) = connection();
        maps.connections.set(&key, &opened).unwrap();
        drop(one);

        let before = Pins::of_layout(&sites[0].pins, &sites[0].name(), PREVIOUS_LAYOUT);
        let next = meanwhile(client, 1, || {
            Bpf::hand_over(PREVIOUS, &before, &Sizes::default()).unwrap();
        });
        assert_eq!(layouts(&sites[0]), [format!("v{PREVIOUS_LAYOUT}")]);
        assert!(answered(client, next), "by the previous programs");
        let mut upgraded = None;
        meanwhile(client, next + 1, || {
            let mut host = sites[0].open();
            sites[0].apply(&mut host, &sites[0].state()).unwrap();
            upgraded = Some(host);
        });
        let host = upgraded.unwrap();
        assert_eq!(layouts(&sites[0]), [format!("v{}", kuafu_dataplane::bpf::LAYOUT)]);
        assert_eq!((host.incarnation(), host.contents()), (incarnation, &contents));
        let maps = host.maps();
        let lanes = maps.pair_states.get(&5).unwrap().unwrap().lanes;
        assert_eq!(
            [lanes[3].get(), lanes[4].get()],
            [1_000 + 2 * ADVANCE, 2 * ADVANCE]
        );
        let seen = maps.windows.get(&6).unwrap().unwrap();
        let again = seen.admit(&kuafu_pipeline::map::SingleThreaded, 1, 3, 4_321);
        assert_eq!(again, Err(kuafu_pipeline::Reason::Duplicate));
        let kept = maps.connections.get(&key).unwrap().unwrap();
        assert_eq!(kept.last_packet.get(), opened.last_packet.get());
        assert_eq!(maps.slots.get(&1).unwrap(), Some(Slot::default()));
    });
}
