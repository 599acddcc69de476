//! Calls of services' scaling hooks, by HTTP/1.1: one POST, no redirects, no proxies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::shell::{Shell, unix_seconds};
use crate::core::Call;

/// How often it is looked which calls are due.
const LOOK: Duration = Duration::from_millis(500);
/// Octets of the longest answer: 1000 targets fit.
const ANSWER: usize = 256 << 10;

/// Makes the calls that are due, each beside all others, until the shell cannot go on.
pub(super) async fn call_each(shell: &Arc<Shell>) {
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let calls = shell.drive(|core, now| core.handle_scaling(now, unix_seconds()));
        let Ok(calls) = calls else {
            return std::future::pending().await;
        };
        for call in calls {
            let shell = Arc::clone(shell);
            tokio::spawn(async move {
                let answer = made(&call).await;
                let answer = answer.and_then(|text| text.map(|text| call.read(&text)).transpose());
                let handle =
                    |core: &mut crate::core::Core, _| ((), core.handle_hook(unix_seconds(), &call, answer));
                // A shell that stops says so itself.
                drop(shell.drive(handle));
            });
        }
    }
}

/// What a call comes to: the answer; `None`: nothing changes.
///
/// # Errors
/// Why it failed, in words that go on after the hook's URL.
async fn made(call: &Call) -> Result<Option<String>, String> {
    let limit = Duration::from_secs(call.timeout_s.into());
    let answer = tokio::time::timeout(limit, post(call)).await;
    answer.unwrap_or_else(|_| Err(format!("did not answer within {} s", call.timeout_s)))
}

async fn post(call: &Call) -> Result<Option<String>, String> {
    let url: Uri = call
        .url
        .parse()
        .map_err(|error| format!("is no URL that can be called: {error}"))?;
    let is_https = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
    let request = request(&url, call)?;
    let response = if is_https {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| format!("has no name for TLS: {error}"))?;
        let stream = TlsConnector::from(tls()?).connect(name, stream).await;
        let stream = stream.map_err(|error| format!("cannot be reached by TLS: {error}"))?;
        send(request, TokioIo::new(stream)).await
    } else {
        send(request, TokioIo::new(stream)).await
    };
    judge(response.map_err(|error| format!("broke off: {error}"))?).await
}

fn request(url: &Uri, call: &Call) -> Result<Request<String>, String> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    // A URL's path may be empty, a request's may not (RFC 9112, section 3.2.1).
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = url.authority().map_or("", |authority| authority.as_str());
    Request::post(format!("{slash}{path}"))
        .header(HOST, host)
        .header(USER_AGENT, concat!("kuafu/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .body(call.body.clone())
        .map_err(|error| format!("is no URL that can be called: {error}"))
}

async fn send(
    request: Request<String>,
    stream: impl Read + Write + Unpin + Send + 'static,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(stream).await?;
    // It ends with the answer, or with the call that waits for it; what ends it, the request is told too.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(request).await
}

async fn judge(response: Response<Incoming>) -> Result<Option<String>, String> {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NO_CONTENT | StatusCode::ACCEPTED => return Ok(None),
        other => return Err(format!("answered {other}, and not 200, 202 or 204")),
    }
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    let body =
        body.map_err(|error| format!("has an answer that cannot be read (at most 256 KiB): {error}"))?;
    let text = String::from_utf8(body.to_bytes().into());
    text.map(Some)
        .map_err(|_| "answers what is no JSON: it is not UTF-8".to_owned())
}

/// What makes TLS with those who have a certificate of one of the system's authorities.
fn tls() -> Result<Arc<rustls::ClientConfig>, String> {
    static CONFIG: OnceLock<Result<Arc<rustls::ClientConfig>, String>> = OnceLock::new();
    CONFIG.get_or_init(config).clone()
}

fn config() -> Result<Arc<rustls::ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(
            "cannot be trusted: this machine has no authorities (apt install ca-certificates)".to_owned(),
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("cannot be called by TLS: {error}"))?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

#[cfg(test)]
mod tests {
    use kuafu_model::kinds::{Object, Service};
    use kuafu_model::manifest::{File, parse};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn web() -> Arc<Service> {
        let text = "kind: Service\nmetadata: {name: web}\nspec: {targets: [{address: 192.0.2.7}]}\n";
        let manifests = parse(&[File { name: "t", text }]).unwrap();
        let Object::Service(service) = manifests[0].object() else {
            panic!("no service")
        };
        Arc::clone(service)
    }

    /// What comes of a call that is answered so; `None`: not at all.
    async fn of(answer: Option<&'static str>) -> (Result<Option<String>, String>, String) {
        of_path("/scale?of=web", answer).await
    }

    async fn of_path(path: &str, answer: Option<&'static str>) -> (Result<Option<String>, String>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let call = Call {
            number: 1,
            service: web(),
            url: format!("http://{}{path}", listener.local_addr().unwrap()),
            timeout_s: 1,
            body: "{\"wants\":2}".to_owned(),
        };
        let serves = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"}") {
                let mut octets = [0; 1_000];
                let count = stream.read(&mut octets).await.unwrap();
                heard.extend_from_slice(&octets[..count]);
            }
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => std::future::pending().await,
            }
            String::from_utf8(heard).unwrap()
        });
        let made = made(&call).await;
        let heard = if answer.is_some() {
            serves.await.unwrap()
        } else {
            serves.abort();
            String::new()
        };
        (made, heard)
    }

    #[tokio::test]
    async fn a_hook_is_posted_to_and_judged_by_its_status() {
        let (made, heard) = of(Some(
            "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"targets\":[]}",
        ))
        .await;
        assert_eq!(made, Ok(Some("{\"targets\":[]}".to_owned())));
        assert!(
            heard.starts_with("POST /scale?of=web HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{heard}"
        );
        assert!(heard.ends_with("\r\n\r\n{\"wants\":2}"), "{heard}");
        for status in ["204 No Content", "202 Accepted"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(of(Some(answer.leak())).await.0, Ok(None));
        }
        let (made, _) = of(Some(
            "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        ))
        .await;
        assert_eq!(
            made,
            Err("answered 302 Found, and not 200, 202 or 204".to_owned())
        );
    }

    #[tokio::test]
    async fn a_url_without_a_path_is_asked_for_its_root() {
        let nothing = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
        for (path, line) in [
            ("?of=web", "POST /?of=web HTTP/1.1\r\n"),
            ("", "POST / HTTP/1.1\r\n"),
        ] {
            let (made, heard) = of_path(path, Some(nothing)).await;
            assert_eq!(made, Ok(None));
            assert!(heard.starts_with(line), "{heard}");
        }
    }

    #[tokio::test]
    async fn one_that_hangs_breaks_off_or_says_too_much_has_failed() {
        let (made, _) = of(None).await;
        assert_eq!(made, Err("did not answer within 1 s".to_owned()));
        let (made, _) = of(Some("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{")).await;
        assert!(made.unwrap_err().starts_with("has an answer that cannot be read"));
        let (made, _) = of(Some("nonsense\r\n\r\n")).await;
        assert!(made.unwrap_err().starts_with("broke off: "));
        let long = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
            " ".repeat(ANSWER + 1)
        );
        let (made, _) = of(Some(long.leak())).await;
        assert!(made.unwrap_err().contains("at most 256 KiB"));
    }
}
