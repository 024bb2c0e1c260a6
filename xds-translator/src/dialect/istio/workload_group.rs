//! `networking.istio.io WorkloadGroup`: fields only.

use std::{collections::BTreeMap, sync::Arc};

use super::service_entry::WorkloadEntry;
use crate::dialect::schema::object;

object! { no_null;
    /// Machines that come and go by themselves: a connected proxy that names the group and proves
    /// the account of the template is a workload.
    WorkloadGroup {
        /// What every machine has beside the template's labels.
        "metadata" metadata: Option<MachineMeta>,
        /// What every machine is like; the address is the proxy's own.
        "template" template: WorkloadEntry [required],
        /// How the agent beside the proxy finds out whether the machine is well; until it is, the
        /// machine takes no traffic.
        "probe" probe: Option<MachineProbe>,
    }
}

object! { no_null;
    /// What every machine has.
    MachineMeta {
        /// Its labels.
        "labels" labels: BTreeMap<Arc<str>, Arc<str>>,
        /// Its annotations.
        "annotations" annotations: BTreeMap<Arc<str>, Arc<str>>
            [idle("nothing looks at annotations of machines")],
    }
}

object! { no_null;
    /// How it is found out whether a machine is well: one of the ways.
    MachineProbe {
        /// Seconds before the first time (0).
        "initialDelaySeconds" initial_delay: Option<u32>,
        /// Seconds that an answer may take (1).
        "timeoutSeconds" timeout: Option<u32>,
        /// Seconds between two times (10).
        "periodSeconds" period: Option<u32>,
        /// How often in a row it has to succeed (1).
        "successThreshold" success_threshold: Option<u32>,
        /// How often in a row it may fail (3).
        "failureThreshold" failure_threshold: Option<u32>,
        /// By a request over HTTP.
        "httpGet" http_get: Option<MachineRequest>,
        /// By a connection.
        "tcpSocket" tcp_socket: Option<MachineSocket>,
        /// By a program.
        "exec" exec: Option<MachineProgram>,
        /// By gRPC's health service.
        "grpc" grpc: Option<MachineGrpc>,
    }
}

object! { no_null;
    /// A request over HTTP.
    MachineRequest {
        /// Its path (`/`).
        "path" path: Arc<str>,
        /// The port.
        "port" port: u16 [required],
        /// The machine's address.
        "host" host: Arc<str>
            [refused("a machine is asked at its own address")],
        /// `HTTP` or `HTTPS`.
        "scheme" scheme: Arc<str>,
        /// Further headers.
        "httpHeaders" http_headers: Vec<MachineHeader>,
    }
}

object! { no_null;
    /// A header.
    MachineHeader {
        /// Its name.
        "name" name: Arc<str> [required],
        /// Its value.
        "value" value: Arc<str>,
    }
}

object! { no_null;
    /// A connection.
    MachineSocket {
        /// The machine's address.
        "host" host: Arc<str>
            [refused("a machine is asked at its own address")],
        /// The port.
        "port" port: u16 [required],
    }
}

object! { no_null;
    /// A program.
    MachineProgram {
        /// It and its arguments; it succeeds with 0.
        "command" command: Vec<Arc<str>> [required],
    }
}

object! { no_null;
    /// gRPC's health service.
    MachineGrpc {
        /// The port.
        "port" port: u16 [required],
        /// Which service is asked about.
        "service" service: Arc<str>,
    }
}
