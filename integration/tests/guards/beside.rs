//! An Envoy and our proxy, each before a workload of its own, of which both are asked the same.

use ferromesh_integration::{
    process::until,
    workload::{LIMIT, Workload, send_to, status},
};

/// The two, and their blocks of loopback addresses.
pub(crate) struct Pair {
    workloads: [Workload; 2],
    blocks: [String; 2],
}

/// Lines of a message that no two proxies, or no two moments, have in common.
const OWN: [&str; 5] =
    ["date:", "x-request-id:", "x-envoy-upstream-service-time:", "connection:", "content-length:"];

impl Pair {
    /// Starts both, in blocks of which this is the number of the first.
    pub(crate) fn start(block: u8) -> Self {
        let blocks = [0, 1].map(|more| format!("127.90.{}", block + more));
        let (envoy, ours) = std::thread::scope(|scope| {
            let envoy = scope.spawn(|| Workload::start("envoy", &blocks[0]));
            let ours = Workload::start("run", &blocks[1]);
            (envoy.join().expect("Envoy's side starts"), ours)
        });
        Self { workloads: [envoy, ours], blocks }
    }

    /// Writes a file of both meshes: in `BLOCK` the addresses are, at `APPLICATION` the application
    /// listens.
    pub(crate) fn write(&self, file: &str, text: &str) {
        for (workload, block) in self.workloads.iter().zip(&self.blocks) {
            let (_, port) = workload.address.rsplit_once(':').expect("an address with a port");
            workload.plane.write(file, text.replace("BLOCK", block).replace("APPLICATION", port));
        }
    }

    /// Each with its block.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Workload, &str)> {
        self.workloads.iter().zip(self.blocks.iter().map(String::as_str))
    }

    /// The status that a proxy of a block answers its application with, which calls a host.
    pub(crate) fn called(&self, block: &str, host: &str) -> u16 {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        status(&send_to(&format!("{block}.4:80"), &request))
    }

    /// The blocks of loopback addresses, Envoy's first.
    pub(crate) fn blocks(&self) -> &[String; 2] {
        &self.blocks
    }

    /// Waits until both answer this request with this status.
    pub(crate) fn until_status(&self, request: &str, expected: u16) {
        for workload in &self.workloads {
            until(LIMIT, &format!("an answer of {expected}"), || {
                status(&workload.send(request)) == expected
            });
        }
    }

    /// What both answer, without what is each one's own.
    pub(crate) fn answers(&self, request: &str) -> [String; 2] {
        [0, 1].map(|at| {
            let answer = self.workloads[at].send(request);
            plain(&answer.replace(&self.blocks[at], "BLOCK"))
        })
    }
}

/// An answer with its fields, and those of the request in its body, sorted and without what differs
/// by nature.
fn plain(answer: &str) -> String {
    let messages = answer.split("\r\n\r\n").map(|message| {
        let mut lines = message.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut rest: Vec<String> = lines
            .map(|line| match line.split_once(':') {
                Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
                None => line.to_owned(),
            })
            .filter(|line| !OWN.iter().any(|own| line.starts_with(own)))
            .collect();
        rest.sort();
        std::iter::once(first).chain(rest).collect::<Vec<_>>().join("\n")
    });
    messages.collect::<Vec<_>>().join("\n\n")
}
