//! `/metrics` for Prometheus.

use std::future::Future;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use kuafu_pipeline::Reason;
use kuafu_proto::v1;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;

use super::handle::Handle;
use crate::error::Result;
use crate::read::{TALLIES, View, counts, dropped, events, is_up, object_of, status};

/// Serves `/metrics` until `stop` ends.
pub(super) async fn serve(
    listener: TcpListener,
    host: Handle,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new().route("/metrics", get(render)).with_state(host);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop).await;
    if let Err(error) = served {
        tracing::warn!(%error, "metrics are served no more");
    }
}

async fn render(State(host): State<Handle>) -> std::result::Result<String, (StatusCode, String)> {
    let text = host.metrics().await;
    text.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

/// All metrics as they are now. The numbers are the kernel's, so that each scrape has a recorder of its own: what is
/// gone is not reported any more.
pub(super) fn text(view: &View<'_>) -> Result<String> {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || observe(view))?;
    Ok(recorder.handle().render())
}

fn observe(view: &View<'_>) -> Result<()> {
    for reason in Reason::ALL {
        let drop = dropped(view.maps, *reason)?;
        counter!("kuafu_dropped_packets_total", "reason" => reason.word()).absolute(drop.packets);
        counter!("kuafu_dropped_octets_total", "reason" => reason.word()).absolute(drop.octets);
    }
    for (event, counted) in events(view.maps)? {
        counter!("kuafu_packets_total", "event" => event.word()).absolute(counted.packets);
        counter!("kuafu_octets_total", "event" => event.word()).absolute(counted.octets);
    }
    observe_shields(view)?;
    let status = status(view)?;
    observe_host(&status);
    status.paths.iter().for_each(observe_path);
    for server in &status.servers {
        let labels = [
            ("service", server.service.clone()),
            ("server", server.address.clone()),
            ("asked", server.asked.clone()),
        ];
        // What is not known yet gets packets.
        gauge!("kuafu_server_up", &labels).set(flag(server.standing != "down"));
        counter!("kuafu_server_suspicions_total", &labels).absolute(server.suspicions);
    }
    for pair in &status.pairs {
        let labels = [("peer", pair.peer.clone()), ("class", pair.class.clone())];
        gauge!("kuafu_pair_on_backup", &labels).set(flag(pair.down));
    }
    Ok(())
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; revisions and entries stay far below 2^53"
)]
fn observe_host(status: &v1::HostStatus) {
    gauge!("kuafu_revision").set(status.revision as f64);
    gauge!("kuafu_incarnation").set(f64::from(status.incarnation));
    gauge!("kuafu_liveness").set(flag(status.liveness));
    gauge!("kuafu_faults").set(status.faults.len() as f64);
    gauge!("kuafu_programs").set(status.programs.len() as f64);
    for port in &status.ports {
        gauge!("kuafu_port_attached", "port" => port.name.clone()).set(flag(port.attached));
    }
    for map in &status.maps {
        gauge!("kuafu_map_entries", "map" => map.name.clone()).set(map.entries as f64);
        gauge!("kuafu_map_capacity", "map" => map.name.clone()).set(map.capacity as f64);
    }
}

/// What shields have counted, by the object that they protect, and whether they are up.
fn observe_shields(view: &View<'_>) -> Result<()> {
    let now = view.clock.jiffies()?;
    for (number, shield) in &view.contents.shields {
        let Some(service) = object_of(view.state, shield.vni) else {
            continue;
        };
        for (what, packets) in TALLIES.iter().zip(counts(view.maps, *number)?) {
            let labels = [("service", service.clone()), ("what", (*what).to_owned())];
            counter!("kuafu_shield_packets_total", &labels).absolute(packets);
        }
        let is_up = is_up(view.maps, (*number, shield), now)?;
        gauge!("kuafu_shield_up", "service" => service).set(flag(is_up));
    }
    Ok(())
}

fn observe_path(path: &v1::PathStatus) {
    let labels = [("path", path.id.to_string()), ("nodes", path.nodes.join(" "))];
    counter!("kuafu_path_probes_sent_total", &labels).absolute(path.sent);
    counter!("kuafu_path_probes_received_total", &labels).absolute(path.received);
    gauge!("kuafu_path_fresh", &labels).set(flag(path.state == "fresh"));
    if path.received != 0 {
        gauge!("kuafu_path_rtt_p50_seconds", &labels).set(f64::from(path.rtt_p50_us) / 1e6);
        gauge!("kuafu_path_rtt_p90_seconds", &labels).set(f64::from(path.rtt_p90_us) / 1e6);
    }
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}
