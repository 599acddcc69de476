//! `/metrics` for Prometheus.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use super::shell::Shell;

/// The process's recorder. `None`: another one was installed before ours.
fn recorder() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| match PrometheusBuilder::new().install_recorder() {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "metrics are recorded elsewhere in this process");
                None
            }
        })
        .as_ref()
}

/// Records from now on.
pub(super) fn install() {
    recorder();
}

/// Serves `/metrics` until the task is dropped.
pub(super) async fn serve(listener: TcpListener, shell: Arc<Shell>) {
    let render = move || {
        let shell = Arc::clone(&shell);
        async move {
            observe(&shell);
            recorder().map(PrometheusHandle::render).unwrap_or_default()
        }
    };
    let router = Router::new().route("/metrics", get(render));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "metrics are served no more");
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "gauges are floating point; revisions stay far below 2^53"
)]
fn observe(shell: &Shell) {
    shell.view(|core, now| {
        metrics::gauge!("kuafu_controller_revision").set(core.revision() as f64);
        metrics::gauge!("kuafu_controller_history_bytes").set(core.past().0 as f64);
        for host in core.host_views(now) {
            let node = host.node.to_string();
            let up = if host.connected { 1.0 } else { 0.0 };
            metrics::gauge!("kuafu_controller_agent_connected", "node" => node.clone()).set(up);
            metrics::gauge!("kuafu_controller_agent_acknowledged_revision", "node" => node.clone())
                .set(host.acknowledged as f64);
            let refused = if host.refused.is_some() { 1.0 } else { 0.0 };
            metrics::gauge!("kuafu_controller_agent_refused", "node" => node.clone()).set(refused);
            for leg in host.legs {
                let rtt = f64::from(leg.rtt_p50_us) / 1e6;
                metrics::gauge!("kuafu_leg_rtt_p50_seconds", "from" => node.clone(), "to" => leg.to.clone())
                    .set(rtt);
                metrics::gauge!("kuafu_leg_loss_ratio", "from" => node.clone(), "to" => leg.to).set(leg.loss);
            }
        }
    });
}
