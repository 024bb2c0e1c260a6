//! Rules of WasmPlugins and TrafficExtensions. Code that cannot be verified is not handed on.

use std::collections::BTreeSet;

use super::{label::check_attachment, line::remark_refused_by_ours};
use crate::{
    diagnostic::{Code, Diagnostic},
    dialect::{
        decode::{Decoder, describe},
        forms::each,
        istio::extension::{
            EnvVar, Source, TrafficExtension, TrafficSelector, ValueFrom, WasmModule, WasmPlugin,
        },
    },
};

pub(in crate::dialect::istio) fn check_plugin(spec: &WasmPlugin, at: &mut Decoder) {
    check_attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at);
    check_matches(&spec.matches, at);
    check_module(&spec.module(), at);
}

pub(in crate::dialect::istio) fn check_extension(spec: &TrafficExtension, at: &mut Decoder) {
    check_attachment(spec.selector.as_ref(), None, &spec.target_refs, at);
    check_matches(&spec.matches, at);
    match (&spec.wasm, &spec.lua) {
        (Some(module), None) => at.within("wasm", |at| check_module(module, at)),
        (None, Some(lua)) => {
            at.within("lua", |at| {
                if lua.inline_code.trim().is_empty() {
                    at.missing("inlineCode", None);
                }
                remark_refused_by_ours("scripts", at);
            });
        }
        _ => at.invalid("exactly one of `wasm` and `lua`", None),
    }
}

fn check_matches(matches: &[TrafficSelector], at: &mut Decoder) {
    each("match", matches, at, |selector, at| {
        each("ports", &selector.ports, at, |port, at| {
            if port.number == 0 {
                at.within("number", |at| at.invalid("not the number of a port", None));
            }
        });
    });
}

fn check_module(module: &WasmModule, at: &mut Decoder) {
    check_source(module, at);
    if !module.verification_key.is_empty() {
        unserved("verificationKey", "a module is not verified by a key", "use `sha256`", at);
    }
    let is_image = matches!(Source::of(&module.url), Some(Source::Image(_)));
    if !module.image_pull_secret.is_empty() && !is_image {
        at.within("imagePullSecret", |at| {
            at.remark(|path| {
                Diagnostic::warning(Code::NoEffect, path, "is for images, which this is none")
            });
        });
    }
    if let Some(config) = module.plugin_config.as_ref().filter(|config| !config.is_object()) {
        at.within("pluginConfig", |at| {
            let finding = Diagnostic::error(Code::WrongType, at.path(), "wrong type");
            at.note(finding.expected("an object", describe(config)));
        });
    }
    if let Some(machine) = &module.vm_config {
        at.within("vmConfig", |at| check_environment(&machine.env, at));
    }
    remark_refused_by_ours("WebAssembly modules", at);
}

fn check_source(module: &WasmModule, at: &mut Decoder) {
    // A missing word is noted already.
    if module.url.is_empty() {
        return;
    }
    let digest = &*module.sha256;
    match Source::of(&module.url) {
        None => {
            at.within("url", |at| {
                let path = at.path();
                let finding =
                    Diagnostic::error(Code::InvalidValue, path, "the value cannot be used");
                let expected = "`file:///PATH`, `http://HOST/PATH`, `https://HOST/PATH` or \
                                `oci://REGISTRY/REPOSITORY:TAG`";
                at.note(finding.expected(expected, format!("`{}`", module.url)));
            });
        }
        Some(Source::Image(image)) => {
            let named = image.split_once("@sha256:").map(|(_, named)| named);
            if named.is_some_and(|own| !digest.is_empty() && !own.eq_ignore_ascii_case(digest)) {
                at.within("sha256", |at| at.invalid("not what `url` says", None));
            }
        }
        Some(Source::File(_)) if !digest.is_empty() => {
            let what = "a file of the proxy's machine is not verified";
            unserved("sha256", what, "remove it, or have the module fetched by `https://`", at);
        }
        Some(Source::Server { .. }) if digest.is_empty() => {
            let fix = "the SHA-256 of the module: what is fetched is run only when it is verified";
            at.missing("sha256", Some(fix.to_owned()));
        }
        Some(Source::File(_) | Source::Server { .. }) => {}
    }
    let is_digest = digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit());
    if !digest.is_empty() && !is_digest {
        at.within("sha256", |at| {
            let finding = Diagnostic::error(Code::InvalidValue, at.path(), "not a SHA-256");
            at.note(finding.expected("64 hexadecimal digits", format!("`{digest}`")));
        });
    }
}

fn check_environment(variables: &[EnvVar], at: &mut Decoder) {
    let mut names = BTreeSet::new();
    each("env", variables, at, |variable, at| {
        if variable.name.is_empty() {
            at.missing("name", None);
        } else if !names.insert(variable.name.clone()) {
            at.within("name", |at| at.invalid("another variable has this name", None));
        }
        if variable.value_from == ValueFrom::Host && !variable.value.is_empty() {
            let fix = Some("remove it: HOST takes the proxy's own value".to_owned());
            at.within("value", |at| at.invalid("is for `valueFrom: INLINE`", fix));
        }
    });
}

/// Refuses something that Istio has.
fn unserved(field: &'static str, what: &str, fix: &str, at: &mut Decoder) {
    let message = format!(
        "{what}: the object is refused; its last accepted version stays in force, and where there \
         is none, what it is about is closed unless it says FAIL_OPEN"
    );
    at.note(Diagnostic::error(Code::NotActedOn, at.path().field(field), message).fix(fix));
}
