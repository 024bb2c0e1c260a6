//! Which part of which object is behind a decision that a proxy makes, for whoever explains it.

use super::Compiler;
use crate::{
    ir::{Field, ObjectId},
    plan::{self, ItemKey, RouteRule, ViewKey},
    snapshot::Reader,
};

impl Compiler {
    /// The rule behind the route with this place in a virtual host of a view's route
    /// configuration; `None`: no object says it, or the view is not kept.
    pub fn rule_of(
        &self,
        key: &ViewKey,
        configuration: &str,
        virtual_host: &str,
        place: usize,
    ) -> Option<RouteRule> {
        let outline = self.outline(key)?;
        let frame = outline.routes.iter().find(|frame| *frame.name == *configuration)?;
        let reader = Reader::new(&self.snapshot);
        frame.virtual_hosts.iter().find_map(|item| {
            let ItemKey::VirtualHost(key) = &**item else { return None };
            let planned = plan::plan_item(&reader, item)?;
            (**planned.name() == *virtual_host).then(|| plan::rule_of(&reader, key, place))?
        })
    }

    /// The policy behind an access rule of a view, and where that rule is written.
    pub fn access_rule_of(&self, key: &ViewKey, rule: &str) -> Option<(ObjectId, Field)> {
        plan::access_rule_of(&Reader::new(&self.snapshot), key, rule)
    }

    /// The access policies in force for a view's workload; sorted, unique.
    pub fn access_policies_of(&self, key: &ViewKey) -> Vec<ObjectId> {
        plan::access_policies_of(&Reader::new(&self.snapshot), key).into_iter().collect()
    }

    /// The token policies in force for a view's workload; sorted, unique.
    pub fn token_policies_of(&self, key: &ViewKey) -> Vec<ObjectId> {
        plan::token_policies_of(&Reader::new(&self.snapshot), key).into_iter().collect()
    }

    /// The policies about mutual TLS in force for a view's workload; sorted, unique.
    pub fn peer_tls_of(&self, key: &ViewKey) -> Vec<ObjectId> {
        plan::peer_tls_of(&Reader::new(&self.snapshot), key).into_iter().collect()
    }
}
