//! An application that knows nothing of the mesh: echo servers, and clients that count answers. As
//! an image it is the sample application of the tests in Kubernetes, so it needs no file beside it.
//!
//!   fm-peer serve ADDRESS NAME VERSION [LINGER]  answers every request with what it saw, as JSON,
//!   and gRPC health checks;
//!                                                told to end, it goes on for LINGER seconds, as an application should that
//!                                                is still being called
//!   fm-peer fail ADDRESS NAME VERSION            the same with status 503, whatever is asked
//!   fm-peer tcp ADDRESS                          echoes bytes fm-peer get URL COUNT
//!   [NAME=VALUE]...        sends COUNT GETs and prints what came back, as JSON fm-peer text URL   
//!                            prints the body of one answer fm-peer load URL RATE [NAME=VALUE]...  
//!        sends RATE GETs a second until told to end; prints counts every second fm-peer say
//!   ADDRESS TEXT                     sends TEXT, prints as many bytes of the answer fm-peer sleep
//!                                 does nothing until told to end

#![allow(clippy::print_stdout, reason = "its output is its result")]

mod ask;
mod load;
mod serve;

use anyhow::bail;
use serve::{fail, serve};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["serve", address, name, version] => serve(address.parse()?, name, version, 0).await,
        ["serve", address, name, version, linger] => {
            serve(address.parse()?, name, version, linger.parse()?).await
        }
        ["fail", address, name, version] => fail(address.parse()?, name, version).await,
        ["tcp", address] => serve::echo(address.parse()?).await,
        ["get", url, count, ref headers @ ..] => ask::get(url, count.parse()?, headers).await,
        ["text", url] => ask::text(url).await,
        ["load", url, rate, ref headers @ ..] => load::load(url, rate.parse()?, headers).await,
        ["say", address, text] => ask::say(address, text).await,
        ["sleep"] => told_to_end().await,
        _ => bail!(
            "usage: fm-peer serve ADDRESS NAME VERSION [LINGER] | fail ADDRESS NAME VERSION | tcp ADDRESS | get URL COUNT [NAME=VALUE]... | \
             text URL | load URL RATE [NAME=VALUE]... | say ADDRESS TEXT | sleep"
        ),
    }
}

/// Waits for SIGTERM, which the first process of a container would otherwise never notice.
async fn told_to_end() -> anyhow::Result<()> {
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}
