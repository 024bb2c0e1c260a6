//! TLS contexts and secrets.

use super::{
    Known::{Each, Guard, In, NoEffect, Read, Refused, Values},
    base::{DATA_SOURCE, SECRET_SOURCE, TRANSPORT_SOCKET},
    matcher::STRING,
    messages,
    reason::MEMORY,
};

messages! {
    DOWNSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        1 "common_tls_context": In(&COMMON_TLS);
        2 "require_client_certificate": Read;
        3 "require_sni": Read;
        4 "session_ticket_keys": Guard;
        5 "session_ticket_keys_sds_secret_config": Guard;
        6 "session_timeout": Guard;
        7 "disable_stateless_session_resumption": Guard;
        8 "ocsp_staple_policy": Guard;
        9 "full_scan_certs_on_sni_mismatch": NoEffect("there is one certificate");
        10 "disable_stateful_session_resumption": Guard;
        11 "prefer_client_ciphers": Guard;
    }

    UPSTREAM_TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" {
        1 "common_tls_context": In(&COMMON_TLS);
        2 "sni": Read;
        3 "allow_renegotiation": Guard;
        4 "max_session_keys": NoEffect(MEMORY);
        5 "enforce_rsa_key_usage": Guard;
        6 "auto_host_sni": Read;
        7 "auto_sni_san_validation": Read;
    }

    COMMON_TLS = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        1 "tls_params": In(&TLS_PARAMETERS);
        2 "tls_certificates": Each(&TLS_CERTIFICATE);
        3 "validation_context": In(&INLINE_VALIDATION);
        4 "alpn_protocols": Read;
        6 "tls_certificate_sds_secret_configs": Each(&SDS_SECRET);
        7 "validation_context_sds_secret_config": In(&SDS_SECRET);
        8 "combined_validation_context": In(&COMBINED_VALIDATION);
        9 "tls_certificate_certificate_provider": Guard;
        10 "validation_context_certificate_provider": Guard;
        11 "tls_certificate_certificate_provider_instance": Guard;
        12 "validation_context_certificate_provider_instance": Guard;
        13 "custom_handshaker": Guard;
        14 "tls_certificate_provider_instance": Guard;
        15 "key_log": Guard;
        16 "custom_tls_certificate_selector": Guard;
    }

    TLS_PARAMETERS = "envoy.extensions.transport_sockets.tls.v3.TlsParameters" {
        1 "tls_minimum_protocol_version": Values(4);
        2 "tls_maximum_protocol_version": Values(4);
        3 "cipher_suites": Read;
        4 "ecdh_curves": Guard;
        5 "signature_algorithms": Guard;
        6 "compliance_policies": Guard;
    }

    COMBINED_VALIDATION =
        "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext" {
        1 "default_validation_context": In(&DEFAULT_VALIDATION);
        2 "validation_context_sds_secret_config": In(&SDS_SECRET);
        3 "validation_context_certificate_provider": Guard;
        4 "validation_context_certificate_provider_instance": Guard;
    }

    SDS_SECRET = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" {
        1 "name": Read;
        2 "sds_config": In(&SECRET_SOURCE);
    }

    /// Checks that a TLS context holds as a whole.
    INLINE_VALIDATION = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        1 "trusted_ca": In(&DATA_SOURCE);
        2 "verify_certificate_hash": Guard;
        3 "verify_certificate_spki": Guard;
        6 "require_signed_certificate_timestamp": Guard;
        7 "crl": In(&DATA_SOURCE);
        8 "allow_expired_certificate": Guard;
        9 "match_subject_alt_names": Each(&STRING);
        10 "trust_chain_verification": Guard;
        11 "watched_directory": Guard;
        12 "custom_validator_config": Guard;
        13 "ca_certificate_provider_instance": Guard;
        14 "only_verify_leaf_cert_crl": Guard;
        15 "match_typed_subject_alt_names": Each(&SAN);
        16 "max_verify_depth": Guard;
        17 "system_root_certs": Guard;
        18 "suppress_client_ca_list": Guard;
    }

    /// Checks beside roots that a secret holds.
    DEFAULT_VALIDATION = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        1 "trusted_ca": NoEffect("the roots of the secret replace them");
        2 "verify_certificate_hash": Guard;
        3 "verify_certificate_spki": Guard;
        6 "require_signed_certificate_timestamp": Guard;
        7 "crl": Guard;
        8 "allow_expired_certificate": Guard;
        9 "match_subject_alt_names": Each(&STRING);
        10 "trust_chain_verification": Guard;
        11 "watched_directory": Guard;
        12 "custom_validator_config": Guard;
        13 "ca_certificate_provider_instance": Guard;
        14 "only_verify_leaf_cert_crl": Guard;
        15 "match_typed_subject_alt_names": Each(&SAN);
        16 "max_verify_depth": Guard;
        17 "system_root_certs": Guard;
        18 "suppress_client_ca_list": Guard;
    }

    /// Roots that are a secret.
    SECRET_VALIDATION = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        1 "trusted_ca": In(&DATA_SOURCE);
        2 "verify_certificate_hash": Guard;
        3 "verify_certificate_spki": Guard;
        6 "require_signed_certificate_timestamp": Guard;
        7 "crl": In(&DATA_SOURCE);
        8 "allow_expired_certificate": Guard;
        9 "match_subject_alt_names": Guard;
        10 "trust_chain_verification": Guard;
        11 "watched_directory": Guard;
        12 "custom_validator_config": Guard;
        13 "ca_certificate_provider_instance": Guard;
        14 "only_verify_leaf_cert_crl": Guard;
        15 "match_typed_subject_alt_names": Guard;
        16 "max_verify_depth": Guard;
        17 "system_root_certs": Guard;
        18 "suppress_client_ca_list": Guard;
    }

    SAN = "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher" {
        1 "san_type": Read;
        2 "matcher": In(&STRING);
        3 "oid": Guard;
    }

    TLS_CERTIFICATE = "envoy.extensions.transport_sockets.tls.v3.TlsCertificate" {
        1 "certificate_chain": In(&DATA_SOURCE);
        2 "private_key": In(&DATA_SOURCE);
        3 "password": Refused;
        4 "ocsp_staple": Refused;
        5 "signed_certificate_timestamp": Refused;
        6 "private_key_provider": Refused;
        7 "watched_directory": Refused;
        8 "pkcs12": Refused;
        9 "tls_params": Refused;
    }

    SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret" {
        1 "name": Read;
        2 "tls_certificate": In(&TLS_CERTIFICATE);
        3 "session_ticket_keys": Read;
        4 "validation_context": In(&SECRET_VALIDATION);
        5 "generic_secret": Read;
    }

    ANNOUNCED =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" {
        1 "config": In(&ANNOUNCEMENT);
        2 "transport_socket": In(&TRANSPORT_SOCKET);
        3 "allow_unspecified_address": Refused;
        4 "tlv_as_pool_key": NoEffect("nothing but addresses is written");
    }

    ANNOUNCEMENT = "envoy.config.core.v3.ProxyProtocolConfig" {
        1 "version": Values(1);
        2 "pass_through_tlvs": Refused;
        3 "added_tlvs": Refused;
    }

    RAW_BUFFER = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" {}
}
