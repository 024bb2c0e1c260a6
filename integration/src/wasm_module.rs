//! A module for Envoy's Wasm filter, byte by byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Writes `tea.wasm` into a folder: a module that answers every request with 418, the least that
/// Envoy runs (proxy-wasm 0.2.1): `proxy_on_request_headers` calls `proxy_send_local_response`.
///
/// # Panics
/// The folder cannot be written.
pub fn write(folder: &Path) -> PathBuf {
    /// `i32.const N`.
    fn constant(n: i32) -> Vec<u8> {
        let mut code = vec![0x41];
        let mut n = n;
        loop {
            let byte = u8::try_from(n & 0x7f).expect("seven bits");
            n >>= 7;
            let last = (n == 0 && byte & 0x40 == 0) || (n == -1 && byte & 0x40 != 0);
            code.push(if last { byte } else { byte | 0x80 });
            if last {
                return code;
            }
        }
    }
    let length = |n: usize| u8::try_from(n).ok().filter(|n| *n < 128).expect("one byte is enough");
    let counted = |items: &[Vec<u8>]| [vec![length(items.len())], items.concat()].concat();
    let sized = |bytes: &[u8]| [&[length(bytes.len())][..], bytes].concat();
    let section = |number: u8, content: Vec<u8>| [vec![number], sized(&content)].concat();
    let name = |text: &str| sized(text.as_bytes());
    let kind = |parameters: usize, results: usize| {
        [vec![0x60], sized(&vec![0x7f; parameters]), sized(&vec![0x7f; results])].concat()
    };
    let export = |text: &str, kind: u8, index: u8| [name(text), vec![kind, index]].concat();
    let body = |code: &[u8]| sized(&[&[0][..], code, &[0x0b]].concat());
    let answer = [418, 0, 0, 0, 0, 0, 0, -1].map(constant).concat();
    let stop = [answer, vec![0x10, 0, 0x1a], constant(1)].concat();
    let bytes = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, counted(&[kind(0, 0), kind(1, 1), kind(3, 1), kind(8, 1)])),
        section(
            2,
            counted(&[[name("env"), name("proxy_send_local_response"), vec![0, 3]].concat()]),
        ),
        section(3, counted(&[vec![0], vec![1], vec![2]])),
        section(5, counted(&[vec![0, 1]])),
        section(
            7,
            counted(&[
                export("memory", 2, 0),
                export("proxy_abi_version_0_2_1", 0, 1),
                export("proxy_on_memory_allocate", 0, 2),
                export("proxy_on_request_headers", 0, 3),
            ]),
        ),
        section(10, counted(&[body(&[]), body(&constant(1024)), body(&stop)])),
    ];
    let file = folder.join("tea.wasm");
    fs::write(&file, bytes.concat()).expect("a file");
    file
}
