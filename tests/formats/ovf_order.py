"""ovf_order.py DESCRIPTOR: elements stand in the order of OVF's schemas (DMTF DSP8023 1.1, for DSP0243 1.1.1), those that
must be there are, and what refers to something by its id finds it. The schemas themselves are not at hand offline."""
import sys
import xml.etree.ElementTree as ElementTree

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
RASD = f"{{{CIM}CIM_ResourceAllocationSettingData}}"
VSSD = f"{{{CIM}CIM_VirtualSystemSettingData}}"
path = sys.argv[1]


def expect(is_so, sentence):
    if not is_so:
        sys.exit(f"'{path}': {sentence}")


def children(element, *names):
    """Each name once, or as often as there is one of those that end in a star, in this order; other vendors' elements last."""
    have = [x.tag for x in element]
    own = [tag for tag in have if tag.startswith(OVF)]
    expect(have[: len(own)] == own, f"another's element stands before one of {element.tag}: {have}")
    want = []
    for name in names:
        n = own.count(OVF + name.rstrip("*")) if name.endswith("*") else 1
        want += n * [OVF + name.rstrip("*")]
    expect(own == want, f"{element.tag} holds {own}, not {want}")
    return [element.findall(OVF + name.rstrip("*")) for name in names]


def settings(element, namespace, *needed):
    """CIM's types: each element once, in the order of the alphabet."""
    names = [x.tag for x in element]
    expect(all(name.startswith(namespace) for name in names), f"{element.tag} holds others' elements: {names}")
    expect(names == sorted(set(names)), f"{element.tag} is not in the order of the alphabet: {names}")
    missing = [name for name in needed if namespace + name not in names]
    expect(not missing, f"{element.tag} lacks {missing}")


def ids(elements, name):
    """Of all of them, each another one."""
    found = [x.get(OVF + name) for x in elements]
    expect(None not in found and len(found) == len(set(found)), f"values of '{name}': {found}")
    return set(found)


root = ElementTree.parse(path).getroot()
expect(root.tag == OVF + "Envelope", f"it is a {root.tag}")
[[references], [disk_section], [network_section], [system]] = children(
    root, "References", "DiskSection", "NetworkSection", "VirtualSystem"
)
[files] = children(references, "File*")
[_, disks] = children(disk_section, "Info", "Disk*")
[_, networks] = children(network_section, "Info", "Network*")
[_, _, [operating_system], [hardware]] = children(
    system, "Info", "Name", "OperatingSystemSection", "VirtualHardwareSection"
)
children(operating_system, "Info", "Description")
[_, [about], items] = children(hardware, "Info", "System", "Item*")

ids([system], "id")
ids([operating_system], "id")
ids(files, "href")
expect({x.get(OVF + "fileRef") for x in disks} == ids(files, "id"), "disks and files are not one another's")
expect(all(x.get(OVF + "capacity", "").isdigit() for x in disks), "a disk has no capacity")
resources = {f"ovf:/disk/{name}" for name in ids(disks, "diskId")}
connections = ids(networks, "name")

settings(about, VSSD, "ElementName", "InstanceID")
for item in items:
    settings(item, RASD, "ElementName", "InstanceID", "ResourceType")
instances = [x.findtext(RASD + "InstanceID") for x in items]
expect(len(instances) == len(set(instances)), f"two items have one InstanceID: {instances}")
for name, known in (("HostResource", resources), ("Parent", set(instances)), ("Connection", connections)):
    have = {x.findtext(RASD + name) for x in items} - {None}
    expect(have <= known, f"{name} is one of {sorted(have)}, and there are {sorted(known)}")
expect({x.findtext(RASD + "HostResource") for x in items} - {None} == resources, "a disk is nobody's")
