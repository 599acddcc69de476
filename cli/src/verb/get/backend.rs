//! `kuafu get service/… --backend-setup`.

mod lines;

use anyhow::anyhow;
use kuafu_proto::v1::GetRequest;

use crate::ask::Controller;
use crate::failure::Result;

/// Asks for all that is declared; the lines that set a server up for a service.
pub(super) async fn setup(controller: &mut Controller, what: &GetRequest) -> Result<String> {
    if what.kind != "service" || what.name.is_empty() {
        return Err(anyhow!("--backend-setup is about one service, such as service/web").into());
    }
    let intent = controller.intent().await?;
    let Some(service) = intent.services().get(what.name.as_str()) else {
        return Err(anyhow!("there is no service/{}", what.name).into());
    };
    Ok(lines::of(&intent, service)?)
}
