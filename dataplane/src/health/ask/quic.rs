//! QUIC's handshake (RFC 9001), and nothing behind it.
//!
//! The protocol's core runs over our own socket: connected, so that a refusal is heard, one datagram at a time, and
//! gone with the question.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event,
    TransportConfig, VarInt,
};
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::socket::{self, DATAGRAM};
use super::{Failure, Way, tls};

/// Completes a handshake and closes; `host` empty: the address.
pub(super) async fn handshake(way: &Way, limit: Duration, alpn: &str, host: &str) -> Result<(), Failure> {
    let config = config(limit, alpn)?;
    let name = tls::name(host, way.to.ip())?.to_str().into_owned();
    let to = way.to;
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    let (handle, connection) = endpoint
        .connect(Instant::now(), config, to, &name)
        .map_err(|error| Failure::Host(error.to_string()))?;
    let handshake = Handshake {
        socket: socket::udp(way)?,
        to,
        endpoint,
        handle,
        connection,
        outgoing: Vec::new(),
    };
    handshake.run().await
}

fn config(limit: Duration, alpn: &str) -> Result<ClientConfig, Failure> {
    let crypto = QuicClientConfig::try_from(tls::config(alpn)?);
    let crypto = crypto.map_err(|error| Failure::Host(error.to_string()))?;
    let mut transport = TransportConfig::default();
    transport
        // What is lost first is sent again after three of them (RFC 9002, 6.2.2): halfway.
        .initial_rtt(limit / 6)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

struct Handshake {
    socket: UdpSocket,
    to: SocketAddr,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    outgoing: Vec<u8>,
}

impl Handshake {
    async fn run(mut self) -> Result<(), Failure> {
        let mut incoming = vec![0; DATAGRAM];
        loop {
            self.send().await?;
            if self.is_complete()? {
                self.connection
                    .close(Instant::now(), VarInt::default(), Default::default());
                // The answer is there; that the server does not hear of the end is its idle timer's.
                let _ = self.send().await;
                return Ok(());
            }
            let due = self.connection.poll_timeout();
            tokio::select! {
                size = self.socket.recv(&mut incoming) => self.hear(incoming.get(..size?).unwrap_or_default()),
                () = until(due) => self.connection.handle_timeout(Instant::now()),
            }
        }
    }

    /// Sends what the connection has to say.
    async fn send(&mut self) -> Result<(), Failure> {
        while let Some(transmit) = self
            .connection
            .poll_transmit(Instant::now(), 1, &mut self.outgoing)
        {
            let datagram = self.outgoing.get(..transmit.size).unwrap_or_default();
            self.socket.send(datagram).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    fn hear(&mut self, datagram: &[u8]) {
        let mut reply = Vec::new();
        let event = self
            .endpoint
            .handle(Instant::now(), self.to, None, None, datagram.into(), &mut reply);
        // Whatever belongs to no connection is not replied to.
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
    }

    fn is_complete(&mut self) -> Result<bool, Failure> {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => return Ok(true),
                Event::ConnectionLost { reason } => return Err(Failure::broken(&reason)),
                _ => {}
            }
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        Ok(false)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
