//! `kuafu get service/… --backend-setup`.

mod lines;

use anyhow::Context;
use kuafu_model::kinds::Object;
use kuafu_model::manifest::{File, parse};
use kuafu_proto::v1::GetRequest;

use crate::ask::Controller;
use crate::failure::Result;

/// Asks for a service and its pool; the lines that set a server up for it.
pub(super) async fn setup(controller: &mut Controller, what: &GetRequest) -> Result<String> {
    if what.kind != "service" || what.name.is_empty() {
        return Err(anyhow::anyhow!("--backend-setup is about one service, such as service/web").into());
    }
    let Object::Service(service) = object(controller, "service", &what.name).await? else {
        return Err(anyhow::anyhow!("service/{} is none", what.name).into());
    };
    let pool = match &service.spec.pool {
        None => None,
        Some(pool) => match object(controller, "addresspool", pool.as_str()).await? {
            Object::AddressPool(pool) => Some(pool),
            _ => None,
        },
    };
    Ok(lines::of(&service, pool.as_deref())?)
}

async fn object(controller: &mut Controller, kind: &str, name: &str) -> Result<Object> {
    let request = GetRequest {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let answer = controller.api.get(request).await;
    let answer = controller.unwrap(answer)?;
    let file = File {
        name: "the controller's answer",
        text: &answer.yaml,
    };
    let manifests = parse(&[file]).map_err(|errors| anyhow::anyhow!("{}", errors[0]))?;
    let first = manifests
        .into_iter()
        .next()
        .context("the controller's answer is empty")?;
    Ok(first.object().clone())
}
