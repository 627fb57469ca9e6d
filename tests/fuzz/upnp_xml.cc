// SPDX-License-Identifier: BSD-3-Clause
// Any document from a gateway, as a description and as a SOAP reply: bounded, and what is taken from it cannot break out of a request.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/http1.h"
#include "magicsock/portmap/upnp.h"
#include "tests/fuzz/growth.h"

using namespace mesh;
using namespace mesh::portmap;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view xml = as_text({data, size});
    fuzz::allow_growth(20 * std::min(size, upnp::kMaxXml) + (64U << 10));  // a tree: four bytes of text make a node of 64, in pages of 32 KiB
    if (const auto services = upnp::parse_description(xml)) {
        CHECK(services->size() <= upnp::kMaxServices);
        for (const upnp::Service& s : *services) {
            CHECK(s.type.starts_with("urn:") && s.type.size() < 64);
            for (const char c : s.control_path) CHECK(c > ' ' && c <= '~');
            const auto url = http1::parse_url("http://192.168.1.1:5000" + s.control_path);
            CHECK(url && url->host == "192.168.1.1" && url->port == 5000);
            const upnp::Call call = upnp::add_mapping(s, 6000, {Addr::v4(192, 168, 1, 10), 41641}, 7200);
            CHECK(call.soap_action.find_first_of("\r\n") == std::string::npos);
            CHECK(upnp::parse_reply(call.body));  // our own words are XML
        }
    } else {
        CHECK(!services.error().message().empty());
    }
    if (const auto reply = upnp::parse_reply(xml))
        for (const std::string* text : {&reply->error_text, &reply->external_ip, &reply->status, &reply->reserved_port}) CHECK(text->size() <= 256);
    return 0;
}
