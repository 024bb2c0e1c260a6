//! Machines of a WorkloadGroup: proxies that name it, prove its account and say that they are well
//! are endpoints.

use ferromesh_proto::{
    HEALTH_INFORMATION,
    ResourceType::{Cluster, Endpoint, Listener},
    discovery::{DeltaDiscoveryRequest, Status},
};
use prost::Message;
use tokio::time::timeout;

use crate::{
    PATIENCE,
    client::{Delta, node, secure_channel, sign},
    plane::{Plane, SIDECAR},
};

const VMS: &str = "outbound|80||vms.shop.svc.cluster.local";
const MACHINE: &str = "sidecar~10.9.0.1~vm-1.shop~shop.svc.cluster.local";
const THIEF: &str = "sidecar~10.9.0.9~thief.shop~shop.svc.cluster.local";
/// A machine that says that its address is a pod's.
const POSER: &str = "sidecar~10.1.0.1~poser.shop~shop.svc.cluster.local";

const GROUP: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms, namespace: shop}
spec:
  metadata: {labels: {app: vms}}
  template:
    serviceAccount: vm
    ports: {http: 9090}
    labels: {version: v2}
  probe: {tcpSocket: {port: 9090}}
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: vms, namespace: shop}
spec:
  clusterIP: 10.96.0.77
  selector: {app: vms}
  ports: [{name: http, port: 80}]
";

/// A proxy with a certificate of this account, which names the group.
async fn machine(plane: &Plane, id: &str, account: &str) -> Delta {
    let identity = sign(plane, &plane.join_token("shop", account)).await;
    let mut proxy = Delta::open(secure_channel(plane, Some(&identity)).await).await;
    let first = DeltaDiscoveryRequest {
        node: Some(node(id, &[("AUTO_REGISTER_GROUP", "vms")])),
        ..proxy.request(Cluster)
    };
    proxy.send(first).await;
    proxy
}

async fn report(proxy: &mut Delta, well: bool) {
    let error = || Status { code: 2, message: "the port is closed".to_owned() };
    let report = DeltaDiscoveryRequest {
        type_url: HEALTH_INFORMATION.to_owned(),
        error_detail: (!well).then(error),
        ..DeltaDiscoveryRequest::default()
    };
    proxy.send(report).await;
}

/// Waits for the next assignment of the machines: whether this address is in it.
async fn assigned(proxy: &mut Delta, address: &str) -> bool {
    let told = timeout(PATIENCE, async {
        loop {
            let response = proxy.next_raw().await;
            let accepted = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            };
            proxy.send(accepted).await;
            let named = response.resources.iter().any(|resource| resource.name == VMS);
            // The cluster has the same name, and changes with the first machine that has mutual TLS.
            if named && response.type_url == Endpoint.type_url() {
                return response.encode_to_vec();
            }
        }
    });
    let bytes = told.await.expect("an assignment in time");
    bytes.windows(address.len()).any(|part| part == address.as_bytes())
}

/// Names of the workloads that came by themselves.
async fn registered(plane: &Plane) -> Vec<String> {
    let snapshot = plane.control.mesh.snapshot().await.expect("it runs");
    let registered = snapshot.all_workloads().filter(|workload| workload.registered);
    registered.map(|workload| workload.id.name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_proves_its_account_and_is_well_is_an_endpoint() {
    let files = [("group.yaml", GROUP.to_owned()), ("vms.yaml", SERVICE.to_owned())];
    let plane = Plane::start_with(&files).await;
    let mut client = Delta::connect(plane.plaintext().await, SIDECAR).await;
    client.fetch(Cluster, &[]).await;
    client.subscribe(Endpoint, &[VMS]).await;
    assert!(!assigned(&mut client, "10.9.0").await, "nobody is there yet");

    // Of another account it is nobody, whatever it says.
    let mut thief = machine(&plane, THIEF, "cart").await;
    report(&mut thief, true).await;
    thief.next().await;

    let mut vm = machine(&plane, MACHINE, "vm").await;
    let clusters = vm.next().await;
    vm.accept(&clusters).await;
    vm.subscribe(Listener, &[]).await;
    report(&mut vm, true).await;
    assert!(assigned(&mut client, "10.9.0.1").await, "it is well");
    assert_eq!(registered(&plane).await, ["vms-10.9.0.1"]);
    timeout(PATIENCE, async {
        loop {
            let change = vm.next().await;
            vm.accept(&change).await;
            if change.contains("virtualInbound") {
                return;
            }
        }
    })
    .await
    .expect("it gets its inbound side");

    report(&mut vm, false).await;
    assert!(!assigned(&mut client, "10.9.0.1").await, "it is not well");
    report(&mut vm, true).await;
    assert!(assigned(&mut client, "10.9.0.1").await, "it is well again");

    // The template's account is another now, so that nobody proves it.
    plane.write("group.yaml", &GROUP.replace("serviceAccount: vm", "serviceAccount: other"));
    assert!(!assigned(&mut client, "10.9.0.1").await, "it is of no group any more");
    assert_eq!(registered(&plane).await, [""; 0]);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_takes_no_pods_place_by_its_address() {
    let unprobed = GROUP.replace("  probe: {tcpSocket: {port: 9090}}\n", "");
    let files = [("group.yaml", unprobed), ("vms.yaml", SERVICE.to_owned())];
    let plane = Plane::start_with(&files).await;
    let mut client = Delta::connect(plane.plaintext().await, SIDECAR).await;
    client.fetch(Cluster, &[]).await;
    client.subscribe(Endpoint, &[VMS]).await;
    assigned(&mut client, "10.1.0.1").await;
    let mut poser = machine(&plane, POSER, "vm").await;
    poser.next().await;
    assert!(assigned(&mut client, "10.1.0.1").await, "it is an endpoint of its own service");

    // The pod's own proxy is still the pod.
    let identity = sign(&plane, &plane.join_token("shop", "cart")).await;
    let other_name = SIDECAR.replace("cart-0", "unknown");
    let mut pod = Delta::connect(secure_channel(&plane, Some(&identity)).await, &other_name).await;
    assert!(pod.fetch(Listener, &[]).await.contains("virtualInbound"));
    plane.stop().await;
}
