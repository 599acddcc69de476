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
    let Some(vpc) = &service.spec.vpc else {
        return Ok(lines::of(&service, pool.as_deref())?);
    };
    let Object::Vpc(vpc) = object(controller, "vpc", vpc.as_str()).await? else {
        return Err(anyhow::anyhow!("vpc/{vpc} is none").into());
    };
    let (ports, nodes) = (
        objects(controller, "port", "").await?,
        objects(controller, "node", "").await?,
    );
    Ok(lines::of_ports(
        &service,
        pool.as_deref(),
        &vpc,
        (&ports, &nodes),
    )?)
}

async fn object(controller: &mut Controller, kind: &str, name: &str) -> Result<Object> {
    let mut objects = objects(controller, kind, name).await?.into_iter();
    Ok(objects.next().context("the controller's answer is empty")?)
}

/// One object, or all of a kind.
async fn objects(controller: &mut Controller, kind: &str, name: &str) -> Result<Vec<Object>> {
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
    Ok(manifests
        .iter()
        .map(|manifest| manifest.object().clone())
        .collect())
}
