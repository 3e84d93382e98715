// SPDX-License-Identifier: Apache-2.0
#include "libglobalcache/http/interim.h"

#include <gtest/gtest.h>

#include <string>

namespace mcs::http {
namespace {

using Kind = Interim::Kind;

// What a client gets of the interim response at the beginning of `bytes`.
std::string cleaned(std::string bytes) {
  const Interim found = find_interim(bytes);
  return bytes.substr(0, clean_interim(bytes.data(), found)).data();
}

TEST(FindInterim, SeesItsEnd) {
  const std::string hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  const Interim found = find_interim(hints + "HTTP/1.1 200 OK\r\n\r\n");
  EXPECT_EQ(found.kind, Kind::kWhole);
  EXPECT_EQ(found.status, 103);
  EXPECT_EQ(found.size, hints.size());
  EXPECT_EQ(find_interim("HTTP/1.1 102\r\n\r\n").kind, Kind::kWhole);
  EXPECT_EQ(find_interim("HTTP/1.0 199 x\n\nmore").size, 16U);
}

TEST(FindInterim, NeedsEveryByteOfIt) {
  const std::string hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  for (std::size_t n = 0; n < hints.size(); ++n) {
    EXPECT_EQ(find_interim(hints.substr(0, n)).kind, Kind::kShort) << n;
  }
}

TEST(FindInterim, LeavesFinalResponsesAndOtherProtocolsAlone) {
  for (const char* other :
       {"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/2.0 103 x\r\n",
        "Status: 103\r\n\r\n", "\x01\x06", "HTTP/1.1 1x3 \r\n\r\n", "H\r\n"}) {
    EXPECT_EQ(find_interim(other).kind, Kind::kNone) << other;
  }
}

TEST(CleanInterim, DropsWhatBelongsToTheConnection) {
  EXPECT_EQ(cleaned("HTTP/1.0 103 Early Hints\r\nConnection: x-a, close\r\nLink: </a>; rel=preload\r\n"
                    "X-A: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 7\r\n"
                    "Transfer-Encoding: chunked\r\nX-B:2\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-B:2\r\n\r\n");
}

TEST(CleanInterim, IsSilentAboutWhatIsNotForClients) {
  for (const char* bytes :
       {"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 x\nLink: </a>\n\n",
        "HTTP/1.1 103 x\r\nLink: </a>\r\n\n",
        "HTTP/1.1 103 x\r\nno colon\r\n\r\n", "HTTP/1.1 103 x\r\nLink: a\r\n folded\r\n\r\n",
        "HTTP/1.1 103 x\r\nLink: a\rb\r\n\r\n", "HTTP/1.1 103 x\r\na b: c\r\n\r\n"}) {
    EXPECT_EQ(cleaned(bytes), "") << bytes;
  }
  std::string many = "HTTP/1.1 103 x\r\n";
  for (int i = 0; i < 100; ++i) many += "A: b\r\n";
  EXPECT_EQ(cleaned(many + "\r\n"), "");
}

}  // namespace
}  // namespace mcs::http
