//! `ferromesh workload`: what a mesh has to know of a workload, and the token by which its proxy
//! proves that it is its own.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    print::print,
    remote::{Remote, TokenRequest},
    yaml,
};
use crate::config::RemoteOptions;

/// `ferromesh workload`.
#[derive(Subcommand, Debug)]
pub(crate) enum Workload {
    /// Declare a workload, and make its join token
    ///
    /// Writes a WorkloadEntry (or Pod) to a file of the watched directory, or without one stores it
    /// through the REST API, and prints how to start its proxy.
    Add(Add),
}

/// `ferromesh workload add`.
#[derive(Args, Debug)]
#[group(skip)]
#[command(after_help = "Examples:
  ferromesh workload add cart-1 --address 10.0.0.7 --service-account cart --label app=cart
  ferromesh workload add cart-1 --address 10.0.0.7 -s cart -f mesh/cart-1.yaml
  ferromesh workload add cart-1 --address 10.0.0.7 -s cart --port http=8000 --pod -f mesh/cart-1.yaml")]
pub(crate) struct Add {
    /// Its name
    name: String,
    /// Its address
    #[arg(long)]
    address: IpAddr,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The service account whose identity its proxy proves
    #[arg(short, long, default_value = "default")]
    service_account: String,
    /// A label, by which services select it; may be given several times [default: app=ACCOUNT]
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// The port that a service's port of this name leads to; may be given several times
    #[arg(long = "port", value_name = "NAME=NUMBER", value_parser = port)]
    ports: Vec<(String, u16)>,
    /// Write a Pod, as a cluster would have it, instead of a WorkloadEntry
    #[arg(long)]
    pod: bool,
    /// A new file of the watched directory to write it to; without it, it is stored by REST
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The file for its join token [default: NAME.token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long the token is good for; it is good for one certificate
    #[arg(long, default_value = "1h")]
    ttl: String,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn port(text: &str) -> Result<(String, u16), String> {
    let expected = || format!("expected NAME=NUMBER, got {text:?}");
    let (name, number) = text.split_once('=').ok_or_else(expected)?;
    let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(expected)?;
    Ok((name.to_owned(), number))
}

/// Does what is asked.
///
/// # Errors
/// A file is there already or cannot be written, or the control plane refuses the object or the
/// token; what was made before stays.
pub(crate) async fn run(command: &Workload, remote: &RemoteOptions) -> anyhow::Result<()> {
    let Workload::Add(add) = command;
    let remote = Remote::new(remote)?;
    let token_file = add.token_file();
    // Before anything is made: a token that nobody can keep is lost.
    let mut token = new_file(&token_file, 0o600)?;
    match &add.file {
        Some(path) => {
            let mut file = new_file(path, 0o644)?;
            file.write_all(yaml::block(&add.object()).as_bytes())?;
            print(&format!("{} written to {}", add.title(), path.display()));
        }
        None => remote.store_one(add.object()).await?,
    }
    let request = TokenRequest {
        namespace: &add.namespace,
        service_account: &add.service_account,
        ttl: &add.ttl,
        single_use: true,
    };
    writeln!(token, "{}", remote.join_token(&request).await?)?;
    print(&add.next_step(&token_file));
    Ok(())
}

fn new_file(path: &Path, mode: u32) -> anyhow::Result<std::fs::File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.with_context(|| format!("making {}; it must not be there yet", path.display()))
}

impl Add {
    fn token_file(&self) -> PathBuf {
        self.token_file.clone().unwrap_or_else(|| format!("{}.token", self.name).into())
    }

    fn title(&self) -> String {
        let kind = if self.pod { "Pod" } else { "WorkloadEntry" };
        format!("{kind} {}/{}", self.namespace, self.name)
    }

    fn labels(&self) -> BTreeMap<&str, &str> {
        match &self.labels[..] {
            [] => BTreeMap::from([("app", &*self.service_account)]),
            labels => labels.iter().map(|(key, value)| (&**key, &**value)).collect(),
        }
    }

    fn object(&self) -> Value {
        if self.pod { self.pod_object() } else { self.entry() }
    }

    fn entry(&self) -> Value {
        let mut spec = json!({
            "address": self.address, "serviceAccount": self.service_account,
            "labels": self.labels(),
        });
        if !self.ports.is_empty() {
            let ports: BTreeMap<_, _> = self.ports.iter().cloned().collect();
            spec["ports"] = json!(ports);
        }
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": spec,
        })
    }

    fn pod_object(&self) -> Value {
        let port =
            |(name, number): &(String, u16)| json!({ "name": name, "containerPort": number });
        let ports: Vec<Value> = self.ports.iter().map(port).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": self.name, "namespace": self.namespace, "labels": self.labels(),
            },
            "spec": {
                "serviceAccountName": self.service_account,
                "containers": [{ "name": "app", "image": "none", "ports": ports }],
            },
            "status": {
                "phase": "Running", "podIP": self.address,
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        })
    }

    fn next_step(&self, token_file: &Path) -> String {
        let Self { name, address, namespace, service_account: account, .. } = self;
        let token = token_file.display();
        format!(
            "a join token for {namespace}/{account} is in {token}: good for one certificate, for {}\n\
             start the proxy where {address} is, with the file of roots and the token:\n\
             \x20 ferromesh-proxy run --control-plane 127.0.0.1:15012 \
             --root-cert ferromesh-data/root-cert.pem \\\n\
             \x20   --token-file {token} --work-dir {name}.work --namespace {namespace} \
             --service-account {account} --name {name} --ip {address}",
            self.ttl
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ferromesh_xds_translator::{
        analyze::analyze_input, dialect::parse_files, ir::MeshDefaults,
    };

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        add: Add,
    }

    fn add(line: &str) -> Add {
        let words = format!("add {line}");
        Line::try_parse_from(words.split_whitespace()).unwrap_or_else(|e| panic!("{e}")).add
    }

    #[test]
    fn what_is_written_is_what_the_mesh_reads() {
        for more in ["", "--pod --port http=8000", "--label app=cart --label a=b --port http=1"] {
            let add = add(&format!("cart-1 --address 10.0.0.7 -n shop -s cart {more}"));
            let text = yaml::block(&add.object());
            let parsed = parse_files([("cart.yaml", text.as_bytes())]);
            let findings = analyze_input(&parsed, &MeshDefaults::default());
            assert!(findings.is_empty(), "{text}\n{findings:#?}");
            let [object] = &parsed.objects[..] else { panic!("{text}") };
            assert_eq!(object.raw()["metadata"], add.object()["metadata"]);
            assert_eq!(object.raw()["spec"], add.object()["spec"]);
        }
    }

    #[test]
    fn a_port_has_a_name_and_a_number() {
        assert_eq!(port("http=80"), Ok(("http".to_owned(), 80)));
        for bad in ["80", "http=", "http=0", "http=70000"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }
}
