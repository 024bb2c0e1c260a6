//! Access logs as control planes send them.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog as WireLog, AccessLogFilter, ExtensionFilter, access_log::ConfigType,
                access_log_filter::FilterSpecifier, extension_filter,
            },
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::cel::v3::ExpressionFilter,
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};

use super::*;
use crate::runtime::access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogTarget};

/// What a manager makes of a log; an error without the way to the place.
fn compiled(log: WireLog) -> Result<AccessLog, String> {
    let mut message = manager("80", vec![router()]);
    message.access_log = vec![log];
    let compiled =
        compile_listener(&listener("l", chain(vec![network_filter("hcm", any(&message))])));
    let listener =
        compiled.map_err(|error| error.split_once("access_log[0].").unwrap().1.to_owned())?;
    match &listener.chains[0].terminal {
        Terminal::Http(manager) => Ok(manager.access_logs[0].clone()),
        Terminal::Tcp(_) => panic!("expected HTTP"),
    }
}

fn file(format: SubstitutionFormatString) -> WireLog {
    let log = FileAccessLog {
        path: "/dev/stdout".to_owned(),
        access_log_format: Some(AccessLogFormat::LogFormat(format)),
    };
    WireLog { config_type: Some(ConfigType::TypedConfig(any(&log))), ..Default::default() }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

fn json(fields: Vec<(&str, Value)>) -> SubstitutionFormatString {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let format = Some(Format::JsonFormat(Struct { fields }));
    SubstitutionFormatString { format, ..Default::default() }
}

fn filtered(expression: &str) -> WireLog {
    let filter = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
    let config_type = Some(extension_filter::ConfigType::TypedConfig(any(&filter)));
    let filter = ExtensionFilter { name: "cel".to_owned(), config_type };
    let specifier = Some(FilterSpecifier::ExtensionFilter(filter));
    let filter = Some(AccessLogFilter { filter_specifier: specifier });
    WireLog { filter, ..file(json(vec![])) }
}

#[test]
fn fields_of_json_have_every_type() {
    let list = ListValue { values: vec![value(Kind::BoolValue(true)), value(Kind::NullValue(0))] };
    let inner = Struct { fields: [("d".to_owned(), text("%PROTOCOL%!"))].into() };
    let format = json(vec![
        ("c", value(Kind::StructValue(inner))),
        ("b", value(Kind::ListValue(list))),
        ("a", value(Kind::NumberValue(3.0))),
        ("e", value(Kind::NumberValue(1.5))),
    ]);
    let format = SubstitutionFormatString { omit_empty_values: true, ..format };
    let LogTarget::Lines(lines) = compiled(file(format)).unwrap().target else {
        panic!("it is a file")
    };
    assert!(lines.omits_empty);
    let LogFormat::Json(fields) = &lines.format else { panic!("{lines:?}") };
    let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b", "c", "e"]);
    assert_eq!(fields[0].1, JsonFormat::Constant(3.into()));
    assert_eq!(fields[3].1, JsonFormat::Constant(1.5.into()));
    let constants = [true.into(), serde_json::Value::Null].map(JsonFormat::Constant);
    assert_eq!(fields[1].1, JsonFormat::List(constants.into()));
    let JsonFormat::Object(inner) = &fields[2].1 else { panic!("{fields:?}") };
    assert!(
        matches!(&inner[..], [(name, JsonFormat::Text(ops))] if &**name == "d" && ops.len() == 2)
    );
}

#[test]
fn what_cannot_be_written_is_refused_by_its_name() {
    let list = ListValue { values: vec![text("a"), text("%NO%")] };
    let inner = Struct { fields: [("b".to_owned(), value(Kind::ListValue(list)))].into() };
    let error = compiled(file(json(vec![("a", value(Kind::StructValue(inner)))]))).unwrap_err();
    let place = "typed_config.log_format.json_format.a.b.values[1]: unknown operator %NO%";
    assert_eq!(error, place);
}

#[test]
fn an_expression_says_what_is_logged() {
    let log = compiled(filtered("response.code >= 400")).unwrap();
    assert!(matches!(&log.filter, LogFilter::True(_)), "{log:?}");
    let error = compiled(filtered("request.nothing")).unwrap_err();
    let place = "filter.extension_filter.typed_config.expression: not an expression in CEL: ";
    assert!(error.starts_with(place), "{error}");
}
