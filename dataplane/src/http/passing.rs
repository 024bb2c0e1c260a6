//! What the filters of one request have in common: the configuration, and the route that the
//! request has found so far.

use std::sync::Arc;

use super::{
    exchange::Exchange,
    outgoing::Outgoing,
    request::{Matched, facts},
};
use crate::{
    runtime::{
        HttpConnectionManager, RouteConfig, RouteDecision,
        action::Action,
        filter::{ForRouter, OverrideLevels},
        limits::BodyLimit,
        rate_limit::RouteLimits,
        route::{Route, VirtualHost},
        target::{ClusterChoice, WeightedCluster},
    },
    worker::ActiveConfig,
};

/// What is the same for all filters of one request, until one of them has its route chosen again.
#[derive(Clone, Copy)]
pub(super) struct Passing<'a> {
    pub(super) config: &'a Arc<ActiveConfig>,
    pub(super) manager: &'a HttpConnectionManager,
    pub(super) routes: &'a RouteConfig,
    pub(super) decision: RouteDecision<'a>,
    /// The target of a route that splits its requests; drawn once, for all attempts and settings.
    pub(super) target: Option<&'a WeightedCluster>,
    pub(super) levels: OverrideLevels<'a>,
    /// Most bytes of the request's body that filters may ask to see before it goes on.
    pub(super) most_seen: usize,
    /// What the route that forwards the request says of rate limits.
    pub(super) limits: Option<RouteLimits<'a>>,
}

impl<'a> Passing<'a> {
    /// Finds the route of a request, and notes its name.
    pub(super) fn of(
        config: &'a Arc<ActiveConfig>,
        manager: &'a HttpConnectionManager,
        routes: &'a RouteConfig,
        exchange: &mut Exchange,
        outgoing: &Outgoing,
    ) -> Self {
        let decision = routes.find(&facts(exchange, outgoing), rand::random());
        let target = weighted_target(&decision);
        let body_limit = found(&decision)
            .and_then(|(host, route)| BodyLimit::in_force(route.body_limit, host.body_limit));
        if let Some((_, route)) = found(&decision) {
            exchange.route = Arc::clone(&route.name);
        }
        Self {
            config,
            manager,
            routes,
            decision,
            target,
            levels: override_levels(&decision, target),
            most_seen: exchange.downstream.listener.buffer.of_body(body_limit),
            limits: limits(&decision, target),
        }
    }

    /// The same once headers or metadata have changed.
    pub(super) fn again(self, exchange: &mut Exchange, outgoing: &Outgoing) -> Self {
        Self::of(self.config, self.manager, self.routes, exchange, outgoing)
    }

    /// The route, with its virtual host, if there is one.
    pub(super) fn found(&self) -> Option<(&'a VirtualHost, &'a Route)> {
        found(&self.decision)
    }

    /// What a request on its way to the router has found.
    pub(super) fn matched(
        &self,
        (host, route): (&'a VirtualHost, &'a Route),
        router: ForRouter,
    ) -> Matched<'a> {
        let Self { config, routes, target, .. } = *self;
        Matched { config, routes, host, route, target, router }
    }
}

fn found<'a>(decision: &RouteDecision<'a>) -> Option<(&'a VirtualHost, &'a Route)> {
    match decision {
        RouteDecision::Route { host, route } => Some((host, route)),
        _ => None,
    }
}

fn weighted_target<'a>(decision: &RouteDecision<'a>) -> Option<&'a WeightedCluster> {
    let RouteDecision::Route { route: Route { action: Action::Forward(action), .. }, .. } =
        decision
    else {
        return None;
    };
    match &action.cluster {
        ClusterChoice::Weighted(clusters) => Some(clusters.pick(rand::random())),
        ClusterChoice::One(_) | ClusterChoice::Header(_) => None,
    }
}

/// What a route that forwards says of rate limits. Where a header names the cluster, nobody knows it
/// yet.
fn limits<'a>(
    decision: &RouteDecision<'a>,
    target: Option<&'a WeightedCluster>,
) -> Option<RouteLimits<'a>> {
    let RouteDecision::Route { host, route: Route { action: Action::Forward(action), .. } } =
        decision
    else {
        return None;
    };
    let cluster = match (&action.cluster, target) {
        (_, Some(target)) => Some(&*target.name),
        (ClusterChoice::One(name), None) => Some(&**name),
        (ClusterChoice::Header(_) | ClusterChoice::Weighted(_), None) => None,
    };
    Some(RouteLimits {
        of_route: &action.rate_limits,
        of_host: &host.rate_limits,
        include_host: action.include_host_rate_limits,
        cluster,
    })
}

/// What the levels of routes set for filters, the most specific first.
fn override_levels<'a>(
    decision: &RouteDecision<'a>,
    target: Option<&'a WeightedCluster>,
) -> OverrideLevels<'a> {
    OverrideLevels(match decision {
        RouteDecision::Route { host, route } => {
            [target.map(|target| &target.overrides), Some(&route.overrides), Some(&host.overrides)]
        }
        RouteDecision::NoRoute(host) | RouteDecision::RequireTls(host) => {
            [Some(&host.overrides), None, None]
        }
        RouteDecision::NoHost => [None; 3],
    })
}
