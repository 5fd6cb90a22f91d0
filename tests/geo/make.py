"""Makes the databases of places beside it: python3 -m pip install mmdb-writer==0.2.7 netaddr.

Loopback addresses and those for documentation, so that tests reach them; no data of anybody's.
"""

from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet

HERE = Path(__file__).parent


def place(country, city=None):
    record = {"country": {"iso_code": country, "names": {"en": country}}}
    if city:
        record["city"] = {"names": {"en": city, "de": city + " (de)"}}
    return record


def write(name, kind, places):
    writer = MMDBWriter(6, kind, languages=["en", "de"], ipv4_compatible=True)
    for networks, record in places:
        writer.insert_network(IPSet(networks.split()), record)
    writer.to_db_file(str(HERE / name))


HOME, LATER = place("DE", "Berlin"), place("NL", "Utrecht")
ABROAD, COUNTRY_ONLY = place("BR", "São Paulo <b>"), place("JP")
REST = [("203.0.113.0/24 2001:db8:1::/48", ABROAD), ("198.51.100.0/24", COUNTRY_ONLY)]

if __name__ == "__main__":
    write("places.mmdb", "Tests-City", [("127.0.0.0/8 192.0.2.0/24", HOME), *REST])
    write("later.mmdb", "Tests-City", [("127.0.0.0/8 192.0.2.0/24", LATER), *REST])
    write("asn.mmdb", "Tests-ASN", [("127.0.0.0/8", {"autonomous_system_number": 64496})])
