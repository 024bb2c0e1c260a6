//! Flags of `redirect`: the words and defaults of Istio's init container.

use clap::Args;
use ipnet::IpNet;

use crate::redirect::{RedirectSettings, Scope};

/// Flags of `redirect`. Lists have commas; `*` stands for all.
#[derive(Debug, Args)]
pub struct RedirectArgs {
    /// The user that the proxy runs as, whose connections are not captured.
    #[arg(long, env = "FERROMESH_PROXY_UID", value_name = "UID", default_value_t = 1337)]
    proxy_uid: u32,
    /// The group that the proxy runs as, exempt likewise; by default the same number.
    #[arg(long, env = "FERROMESH_PROXY_GID", value_name = "GID")]
    proxy_gid: Option<u32>,
    /// Where the proxy takes connections to the workload.
    #[arg(long, env = "FERROMESH_INBOUND_PORT", value_name = "PORT", default_value_t = 15006)]
    inbound_port: u16,
    /// Where the proxy takes connections of the workload.
    #[arg(long, env = "FERROMESH_OUTBOUND_PORT", value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// Destination networks that are captured.
    #[arg(
        long,
        env = "FERROMESH_INCLUDE_OUTBOUND_CIDRS",
        value_name = "CIDRS",
        default_value = "*"
    )]
    include_outbound_cidrs: Scope<IpNet>,
    /// Destination networks that are not.
    #[arg(
        long,
        env = "FERROMESH_EXCLUDE_OUTBOUND_CIDRS",
        value_name = "CIDRS",
        default_value = ""
    )]
    exclude_outbound_cidrs: Scope<IpNet>,
    /// Destination ports that are captured outside of those networks too.
    #[arg(
        long,
        env = "FERROMESH_INCLUDE_OUTBOUND_PORTS",
        value_name = "PORTS",
        default_value = ""
    )]
    include_outbound_ports: Scope<u16>,
    /// Destination ports that are not captured.
    #[arg(
        long,
        env = "FERROMESH_EXCLUDE_OUTBOUND_PORTS",
        value_name = "PORTS",
        default_value = ""
    )]
    exclude_outbound_ports: Scope<u16>,
    /// The workload's ports that are captured.
    #[arg(
        long,
        env = "FERROMESH_INCLUDE_INBOUND_PORTS",
        value_name = "PORTS",
        default_value = "*"
    )]
    include_inbound_ports: Scope<u16>,
    /// The workload's ports that are not.
    #[arg(
        long,
        env = "FERROMESH_EXCLUDE_INBOUND_PORTS",
        value_name = "PORTS",
        default_value = "15020,15021,15090"
    )]
    exclude_inbound_ports: Scope<u16>,
    /// Print the rules as nft text, for IPv4 and IPv6, and change nothing.
    #[arg(long)]
    pub print: bool,
}

impl RedirectArgs {
    /// What is captured, and where it goes.
    pub fn settings(&self) -> RedirectSettings {
        RedirectSettings {
            proxy_uid: self.proxy_uid,
            proxy_gid: self.proxy_gid.unwrap_or(self.proxy_uid),
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            outbound_cidrs: self.include_outbound_cidrs.clone(),
            excluded_outbound_cidrs: self.exclude_outbound_cidrs.clone(),
            outbound_ports: self.include_outbound_ports.clone(),
            excluded_outbound_ports: self.exclude_outbound_ports.clone(),
            inbound_ports: self.include_inbound_ports.clone(),
            excluded_inbound_ports: self.exclude_inbound_ports.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Command, parse};

    fn settings(flags: &[&str]) -> Result<RedirectSettings, String> {
        let arguments = ["ferromesh-proxy", "redirect"].iter().chain(flags).map(OsString::from);
        match parse(arguments).map_err(|error| error.to_string())?.command {
            Command::Redirect(args) => Ok(args.settings()),
            other => panic!("redirect was asked for, got {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_an_injected_pod() {
        let explicit = settings(&[
            "--proxy-uid",
            "1337",
            "--inbound-port",
            "15006",
            "--outbound-port",
            "15001",
            "--include-outbound-cidrs",
            "*",
            "--exclude-outbound-cidrs",
            "",
            "--include-outbound-ports",
            "",
            "--exclude-outbound-ports",
            "",
            "--include-inbound-ports",
            "*",
            "--exclude-inbound-ports",
            "15020,15021,15090",
        ]);
        assert_eq!(explicit, settings(&[]));
        assert_eq!(explicit.unwrap().proxy_gid, 1337);
    }

    #[test]
    fn a_wrong_list_is_refused_with_its_flag() {
        let error = settings(&["--exclude-outbound-cidrs", "10.0.0.0/8,all"]).unwrap_err();
        assert!(
            error.contains("--exclude-outbound-cidrs") && error.contains("got \"all\""),
            "{error}"
        );
    }
}
