//! `ferromesh bootstrap`: a bootstrap for people who start Envoy themselves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use ferromesh_proto::bootstrap::{
    BootstrapSettings, Discovery, HostPort, MoreStatistics, NodeSettings, ProxyType, Statistics,
    render,
};
use serde_json::Map;

use super::{
    inputs,
    print::{print, print_error},
    remote::{Remote, TokenRequest},
};
use crate::config::{RemoteOptions, SERVER_NAME};

/// `ferromesh bootstrap`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(
    after_help = "With --sds-socket the Envoy uses a running agent's certificate and speaks mutual TLS. Without it, the bootstrap \
carries a join token: the Envoy gets its configuration, to look at, and waits for a certificate that nobody gives it, so that \
it does not start to serve. `ferromesh-proxy envoy` is agent and Envoy in one.

Examples:
  ferromesh bootstrap --name cart-1 -n shop --service-account cart --ip 10.0.0.7 --sds-socket /run/ferromesh/sds > envoy.json
  ferromesh bootstrap --name cart-1 -n shop --service-account cart --ip 10.0.0.7 > envoy.json && envoy -c envoy.json"
)]
pub(crate) struct Bootstrap {
    /// Name of the workload
    #[arg(long)]
    name: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Its service account
    #[arg(long, default_value = "default")]
    service_account: String,
    /// Its address
    #[arg(long)]
    ip: IpAddr,
    /// A sidecar or a gateway
    #[arg(long = "type", value_enum, default_value_t = Type::Sidecar)]
    kind: Type,
    /// A label for Envoy's own statistics and logs; may be given several times. What the mesh serves
    /// goes by the labels of the WorkloadEntry or Pod
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// The control plane's TLS port
    #[arg(long, default_value = "127.0.0.1:15012")]
    control_plane: HostPort,
    /// DNS name that the control plane's certificate carries
    #[arg(long, default_value = SERVER_NAME)]
    server_name: String,
    /// Roots that the control plane's certificate is checked against
    #[arg(long, value_name = "FILE", default_value = "ferromesh-data/root-cert.pem")]
    root_cert: PathBuf,
    /// The SDS socket of a running agent
    #[arg(long, value_name = "PATH")]
    sds_socket: Option<PathBuf>,
    /// Envoy's admin interface
    #[arg(long, default_value = "127.0.0.1:15000")]
    admin: SocketAddr,
    /// Where Envoy serves /stats/prometheus
    #[arg(long)]
    prometheus: Option<SocketAddr>,
    /// How long the join token is good for, when one is needed
    #[arg(long, default_value = "1h")]
    ttl: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Type {
    Sidecar,
    Router,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?}: expected KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Bootstrap {
    /// What this bootstrap does not do, although it may be taken for granted.
    fn remarks(&self) -> Vec<&'static str> {
        let no_socket = self.sds_socket.is_none().then_some(
            "no --sds-socket: the bootstrap carries a join token, and this Envoy waits for a certificate that nobody gives it: it \
             does not start to serve; start `ferromesh-proxy envoy` instead, or give the socket of a running agent",
        );
        let labels = (!self.labels.is_empty()).then_some(
            "--label: the control plane's TLS port takes the labels of a workload from its WorkloadEntry or Pod, never from its \
             proxy: write them there",
        );
        no_socket.into_iter().chain(labels).collect()
    }
}

/// Prints the bootstrap.
///
/// # Errors
/// A join token is needed and the control plane gives none, or the root file cannot be read.
pub(crate) async fn run(command: &Bootstrap, remote: &RemoteOptions) -> anyhow::Result<()> {
    command.remarks().into_iter().for_each(print_error);
    let address = command.control_plane.clone();
    let server_name = command.server_name.clone();
    let discovery = match &command.sds_socket {
        Some(_) => Discovery::MutualTls { address, server_name },
        None => {
            let roots_pem = inputs::text(&command.root_cert).with_context(|| {
                format!(
                    "reading {}; give the control plane's root with --root-cert",
                    command.root_cert.display()
                )
            })?;
            // Its stream shows it again and again, so that it is not of a single use.
            let request = TokenRequest {
                namespace: &command.namespace,
                service_account: &command.service_account,
                ttl: &command.ttl,
                single_use: false,
            };
            let token = Remote::new(remote)?.join_token(&request).await?;
            Discovery::Token { address, server_name, roots_pem, token }
        }
    };
    let node = NodeSettings {
        proxy_type: if command.kind == Type::Router {
            ProxyType::Router
        } else {
            ProxyType::Sidecar
        },
        address: command.ip,
        name: command.name.clone(),
        workload: None,
        namespace: command.namespace.clone(),
        service_account: command.service_account.clone(),
        labels: command.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        cluster_id: "Kubernetes".to_owned(),
        dns_domain: "cluster.local".to_owned(),
        locality: None,
        metadata: Map::new(),
    };
    let settings = BootstrapSettings {
        node,
        discovery,
        sds_socket: command.sds_socket.clone(),
        stats_socket: None,
        admin: command.admin,
        agent: None,
        readiness: None,
        prometheus: command.prometheus,
        statistics: Statistics::Small,
        more_statistics: MoreStatistics::default(),
    };
    print(&render(&settings));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        command: Bootstrap,
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let remarks = |more: &str| {
            let line = format!("bootstrap --name a --ip 10.0.0.7 {more}");
            let parsed =
                Line::try_parse_from(line.split_whitespace()).unwrap_or_else(|e| panic!("{e}"));
            parsed.command.remarks().join("\n")
        };
        assert_eq!(remarks("--sds-socket /run/sds"), "");
        assert!(remarks("").contains("--sds-socket"));
        let labels = remarks("--sds-socket /run/sds --label app=cart");
        assert!(labels.contains("--label") && labels.contains("WorkloadEntry"), "{labels}");
        assert_eq!(remarks("--label app=cart").lines().count(), 2);
    }
}
