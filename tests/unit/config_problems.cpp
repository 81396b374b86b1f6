// SPDX-License-Identifier: MIT
// Every Problem that the configuration can have: the line it is reported at, and what it says.
#include <string>

#include "catch.hpp"
#include "config_samples.hpp"

using namespace tcpmig;
using config_samples::kGood;
using config_samples::line_of;
using config_samples::problems_of;
using config_samples::replaced;

namespace {

/// One change to the good file makes one Problem: at the line of `at`, with these words in it.
struct Case {
  const char* from;
  const char* to;
  const char*
      at;  ///< text on the line of the Problem, in the changed file; "" = the file as a whole
  const char* words;  ///< part of Problem::str()
};

void expect_one(const Case& c) {
  const std::string file = replaced(kGood, c.from, c.to);
  INFO("'" << c.from << "' -> '" << c.to << "'");
  const auto problems = problems_of(file);
  for (const config::Problem& problem : problems) UNSCOPED_INFO(problem.str());
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].line == (*c.at == '\0' ? 0 : line_of(file, c.at)));
  CHECK((problems[0].column > 0) == (problems[0].line > 0));
  CHECK(problems[0].str().starts_with(
      problems[0].line > 0 ? "t.toml:" + std::to_string(problems[0].line) + ":" : "t.toml: "));
  CHECK(problems[0].str().find(c.words) != std::string::npos);
  CHECK(!problems[0].fix.empty());
}

}  // namespace

TEST_CASE("config: a key nobody knows is reported with what was meant") {
  for (const Case& c : {
           Case{"port = 80\n", "prot = 80\n", "prot = 80",
                "unknown key \"prot\" in [[service]]: did you mean \"port\"?"},
           Case{"control_port", "controlport", "controlport", "did you mean \"control_port\"?"},
           Case{"secret_file = \"secret\"", "secret_file = \"s\"\nzzzzzz = 1", "zzzzzz",
                "it can be \"secret_file\", "},
           Case{"secret_file = \"secret\"", "nane = \"x\"\nsecret_file = \"s\"", "nane",
                "did you mean \"name\"?"},
           Case{"clients = ", "datapaht = \"tc\"\nclients = ", "datapaht",
                "in [[switch]]: did you mean \"datapath\"?"},
           Case{"id = 1\n", "id = 1\naddres4 = \"1.2.3.4\"\n", "addres4",
                "did you mean \"address4\"?"},
           Case{"prefix = \"/api\"", "prefixx = \"/api\"", "prefixx", "in [[service.route]]"},
           Case{"{ node = \"s1\" }", "{ node = \"s1\", prt = 1 }", "prt", "did you mean \"port\"?"},
           Case{"algorithm = \"least_connections\"", "algoritm = \"x\"", "algoritm", "in [[pool]]"},
           Case{"[cluster]", "[timeout]\n[cluster]", "[timeout]", "did you mean \"timeouts\"?"},
           Case{"[cluster]", "[limits]\nflow = 5\n[cluster]", "flow = 5",
                "did you mean \"flows\"?"},
           Case{"[cluster]", "[timeouts]\nclose = 5\n[cluster]", "close = 5",
                "unknown key \"close\""},
       })
    expect_one(c);
}

TEST_CASE("config: a missing key is reported at its table") {
  for (const Case& c : {
           Case{"secret_file = \"secret\"\n", "", "[cluster]",
                "\"secret_file\" is missing in [cluster]: add secret_file = "},
           Case{"name = \"sw\"\n", "", "[[switch]]", "\"name\" is missing"},
           Case{"clients = [\"eth0\"]\n", "", "[[switch]]", "add clients = [\"eth0\"]"},
           Case{"nodes = [\"eth1\", \"eth2\"]\n", "", "[[switch]]", "\"nodes\" is missing"},
           Case{"name = \"d1\"\n", "", "[[node]] # d1", "\"name\" is missing"},
           Case{"id = 1\n", "", "[[node]] # d1", "\"id\" is missing"},
           Case{"role = \"server\" # s2\n", "", "[[node]] # s2", "\"role\" is missing"},
           Case{"interface = \"ens2\"\n", "", "[[node]] # s2", "\"interface\" is missing"},
           Case{"name = \"web\"\n", "", "[[service]]", "\"name\" is missing"},
           Case{"id = 7\n", "", "[[service]]", "\"id\" is missing"},
           Case{"prefix = \"/api\"\npool = \"api\"\n", "prefix = \"/api\"\n",
                "[[service.route]] # first", "\"pool\" is missing"},
           Case{"[[pool]]\n", "[[pool]] # nameless\nservers = [{ node = \"s1\" }]\n[[pool]]\n",
                "[[pool]] # nameless", "\"name\" is missing"},
           Case{"{ node = \"s1\" }, ", "{ port = 1 }, ", "{ port = 1 }",
                "\"node\" is missing in servers of [[pool]] \"all\""},
           Case{"address4 = \"10.0.3.3\"\naddress6 = \"fd00:3::3\"\n", "", "[[node]] # s2",
                "has no address: add address4, address6 or both"},
           Case{"vip4 = \"203.0.113.10\"\nvip6 = \"2001:db8::10\"\n", "", "[[service]] # web",
                "has no address: add vip4, vip6 or both"},
           Case{"servers = [{ node = \"s1\", port = 81, handoff = \"/run/api.sock\" }] # api\n", "",
                "[[pool]] # api", "has no servers"},
           Case{"[{ node = \"s1\", port = 81, handoff = \"/run/api.sock\" }]", "[]",
                "servers = [] # api", "has no servers"},
       })
    expect_one(c);
}

TEST_CASE("config: a service without a route is reported") {
  const std::string file = replaced(kGood,
                                    "[[service.route]] # first\nprefix = \"/api\"\npool = \"api\"\n"
                                    "[[service.route]] # second\npool = \"all\"\n",
                                    "");
  const auto problems = problems_of(file);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].line == line_of(file, "[[service]]"));
  CHECK(problems[0].what == "[[service]] \"web\" has no route");
}

TEST_CASE("config: what the cluster cannot do without") {
  const auto whole = [](const std::string& file) {
    std::string text;
    for (const config::Problem& problem : problems_of(file)) {
      CHECK(problem.line == 0);
      text += problem.str() + "\n";
    }
    return text;
  };
  const std::string none = whole("");
  CHECK(none.find("t.toml: there is no [cluster]: add ") != std::string::npos);
  CHECK(none.find("there is no [[switch]]") != std::string::npos);
  CHECK(none.find("there is no dispatcher") != std::string::npos);
  CHECK(none.find("there is no [[service]]") != std::string::npos);
  CHECK(problems_of("cluster = 3")[3].line == 1);
}

TEST_CASE("config: a value of the wrong type or range") {
  for (const Case& c : {
           Case{"port = 80\n", "port = \"80\"\n", "port = \"80\"",
                "is a string: write an integer from 1 to 65535, without quotes"},
           Case{"port = 80\n", "port = 0\n", "port = 0", "it must be from 1 to 65535"},
           Case{"port = 80\n", "port = 65536\n", "port = 65536", "it must be from 1 to 65535"},
           Case{"port = 80\n", "port = 80.5\n", "port = 80.5", "is a number with a fraction"},
           Case{"port = 8080", "port = 0", "port = 0",
                "\"port\" in servers of [[pool]] \"all\" is 0"},
           Case{"control_port = 7421", "control_port = 0", "control_port = 0",
                "it must be from 1 to 65535"},
           Case{"name = \"d1\"", "name = 5", "name = 5", "is an integer: write a string in quotes"},
           Case{"name = \"d1\"", "name = \"\"", "name = \"\"", "is empty"},
           Case{"name = \"d1\"", "name = \"../d1\"", "../d1", "is no usable name"},
           Case{"name = \"sw\"", "name = \"s w\"", "s w", "is no usable name"},
           Case{"secret_file = \"secret\"", "secret_file = \"s\"\nname = \"a/b\"", "a/b",
                "is no usable name"},
           Case{"id = 1\n", "id = 0\n", "id = 0", "it must be from 1 to 1023"},
           Case{"id = 1\n", "id = 1024\n", "id = 1024", "it must be from 1 to 1023"},
           Case{"id = 7\n", "id = 16384\n", "id = 16384", "it must be from 1 to 16383"},
           Case{"role = \"dispatcher\"", "role = \"dispatcher\"\nworkers = 16", "workers",
                "it must be from 0 to 15"},
           Case{"role = \"dispatcher\"", "role = \"dispatcher\"\ntune_receive_sysctls = 1", "tune_",
                "write true or false"},
           Case{"[cluster]", "[agent]\nresume = \"repai\"\n[cluster]", "repai",
                "did you mean \"repair\"?"},
           Case{"role = \"dispatcher\"", "role = \"dispatcher\"\nresume = \"auto\"", "resume",
                "it is for servers"},
           Case{"role = \"server\" # s2", "role = \"sever\"", "sever", "did you mean \"server\"?"},
           Case{"port = 80\n", "port = 80\nprotocol = \"quic\"\n", "quic", "write \"http\""},
           Case{"clients = ", "datapath = \"ebpf\"\nclients = ", "ebpf",
                "write \"auto\", \"tc\" or \"xdp\""},
           Case{"\"least_connections\"", "\"least_connection\"", "least_connection",
                "did you mean \"least_connections\"?"},
           Case{"[\"eth0\"]", "\"eth0\"",
                "clients = ", "is not a list of names: write clients = [\"eth0\"]"},
           Case{"[\"eth0\"]", "[]", "clients = ", "is not a list of names"},
           Case{"[\"eth0\"]", "[1]", "clients = ", "is not a list of names"},
           Case{"[\"eth0\"]", "[\"interface-name-of-17\"]", "clients = ", "cannot be an interface"},
           Case{"\"ens2\"", "\"en s\"", "interface = \"en s\"", "cannot be an interface"},
           Case{"[{ node = \"s1\", port = 81, handoff = \"/run/api.sock\" }]", "[\"s1\"]",
                "[\"s1\"]", "every element must be a table"},
           Case{"[{ node = \"s1\", port = 81, handoff = \"/run/api.sock\" }]", "\"s1\"",
                "servers = \"s1\"", "write a list of tables"},
           Case{"/run/api.sock", "api.sock", "api.sock", "write an absolute path"},
           Case{"[cluster]", "[limits]\nflows = 0\n[cluster]", "flows = 0", "it must be from 1 to"},
           Case{"[cluster]", "[limits]\nhead_bytes = 262145\n[cluster]", "head_bytes",
                "it must be from 1024 to 262144"},
           Case{"[cluster]", "limits = 3\n[cluster]", "limits = 3",
                "write [limits], with one bracket"},
           Case{"[cluster]", "[[timeouts]]\n[cluster]", "[[timeouts]]",
                "write [timeouts], with one bracket"},
       })
    expect_one(c);
}

TEST_CASE("config: one bracket where two are meant") {
  const std::string file = replaced(kGood, "[[switch]]", "[switch]");
  const auto problems = problems_of(file);
  REQUIRE(problems.size() == 2);  // and so there is no switch
  CHECK(problems[1].line == line_of(file, "[switch]"));
  CHECK(problems[1].str().find("write [[switch]], with two brackets") != std::string::npos);
}

TEST_CASE("config: durations that are none") {
  for (const char* value :
       {"\"2 s\"", "\"s\"", "\"-1s\"", "\"1.5s\"", "2.5", "\"99999999999999d\"", "true"})
    expect_one({"[cluster]", ("[timeouts]\nhead = " + std::string(value) + "\n[cluster]").c_str(),
                "head = ", "is not a duration: write \"500ms\", \"2s\""});
  expect_one({"[cluster]", "[timeouts]\nhead = 0\n[cluster]",
              "head = ", "is 0 ms: it must be from 1 ms to 86400000 ms"});
  expect_one({"[cluster]", "[timeouts]\ntombstone = \"11d\"\n[cluster]", "tombstone",
              "it must be from 1 ms to"});
  expect_one({"[cluster]", "[timeouts]\nretry = \"2s\"\n[cluster]", "retry",
              "not shorter than \"transfer\""});
  expect_one({"[cluster]", "[timeouts]\ntombstone = \"1s\"\n[cluster]", "tombstone",
              "shorter than \"transfer\""});
  expect_one({"[cluster]", "[timeouts]\nhealth = \"299ms\"\n[cluster]", "health",
              "shorter than three heartbeats"});
  expect_one({"[cluster]", "[timeouts] # here\nidle = \"6s\"\n[cluster]", "# here",
              "longer than half of \"idle\""});
}

TEST_CASE("config: addresses") {
  for (const Case& c : {
           Case{"10.0.2.2", "10.0.2", "10.0.2", "\"10.0.2\" is no address: write an IPv4 address"},
           Case{"fd00:2::2", "10.1.1.1", "10.1.1.1",
                "\"address6\" is an IPv4 address: write an IPv6 address"},
           Case{"10.0.2.2", "fd00::1", "fd00::1", "\"address4\" is an IPv6 address"},
           Case{"10.0.3.3", "10.0.2.2", "address4 = \"10.0.2.2\"\naddress6 = \"fd00:3::3\"",
                "also the address of node \"d1\" (line 12)"},
           Case{"203.0.113.10", "10.0.3.2", "vip4", "also the address of node \"s1\""},
           Case{"2001:db8::10", "fd00:3::2", "vip6", "also the address of node \"s1\""},
           Case{"203.0.113.10", "100.64.0.9", "vip4",
                "lies inside the virtual private prefix 100.64.0.0/10"},
           Case{"2001:db8::10", "fd7c::9", "vip6",
                "inside the virtual private prefix fd7c::/64: choose another address, or another "
                "[cluster] vpa6"},
           Case{"10.0.3.3", "100.127.0.1", "100.127", "lies inside the virtual private prefix"},
           Case{"203.0.113.10", "127.0.0.1", "vip4", "is a loopback address"},
           Case{"203.0.113.10", "224.0.0.1", "vip4", "is a multicast address"},
           Case{"203.0.113.10", "0.1.2.3", "vip4", "is no host's address"},
           Case{"203.0.113.10", "255.255.255.255", "vip4", "is a reserved address"},
           Case{"2001:db8::10", "::1", "vip6", "is a loopback address"},
           Case{"2001:db8::10", "ff02::1", "vip6", "is a multicast address"},
           Case{"2001:db8::10", "fe80::1", "vip6", "is a link-local address"},
           Case{"interface = \"ens1\"", "interface = \"ens1\"\ngateway4 = \"10.0.3.2\"", "gateway4",
                "also the address of node \"s1\""},
           Case{"interface = \"ens1\"", "interface = \"ens1\"\ngateway4 = \"203.0.113.10\"", "vip4",
                "also the address of the switch"},
           Case{"secret_file", "vpa4 = \"100.64.0.0\"\nsecret_file", "vpa4",
                "is no prefix: write ADDRESS/LENGTH"},
           Case{"secret_file", "vpa4 = \"100.64.0.0/18\"\nsecret_file", "vpa4",
                "cannot hold the virtual private IPv4"},
           Case{"secret_file", "vpa4 = \"100.64.0.1/10\"\nsecret_file", "vpa4",
                "without host bits"},
           Case{"secret_file", "vpa4 = \"fd00::/10\"\nsecret_file", "vpa4",
                "cannot hold the virtual private IPv4"},
           Case{"secret_file", "vpa6 = \"fd7c::/60\"\nsecret_file", "vpa6",
                "cannot hold the virtual private IPv6"},
           Case{"secret_file", "vpa6 = \"fd7c::1/64\"\nsecret_file", "vpa6", "without host bits"},
       })
    expect_one(c);
}

TEST_CASE("config: names and ids are used once") {
  for (const Case& c : {
           Case{"name = \"sw\"", "name = \"d1\"", "name = \"d1\"\nid",
                "is used twice, first in line 5"},
           Case{"id = 102", "id = 101 # 2", "id = 101 # 2",
                "node id 101 is used twice, first in line 17"},
           Case{"[[pool]] # api",
                "[[pool]]\nname = \"all\" # 2\nservers = [{ node = \"s1\" }]\n[[pool]]",
                "name = \"all\" # 2", "pool name \"all\" is used twice"},
           Case{"[\"eth1\", \"eth2\"]", "[\"eth1\", \"eth0\"]", "nodes",
                "interface \"eth0\" is in both \"clients\" and \"nodes\""},
           Case{"[\"eth1\", \"eth2\"]", "[\"eth1\", \"eth1\"]", "nodes",
                "interface \"eth1\" is named twice"},
           Case{"[\"eth0\"]", "[\"eth0\", \"eth0\"]", "clients",
                "interface \"eth0\" is named twice"},
           Case{"{ node = \"s2\", port = 8080 }", "{ node = \"s1\" }", "servers",
                "server s1:80 is used twice"},
       })
    expect_one(c);
}

TEST_CASE("config: a second service") {
  const auto with = [](const std::string& keys) {
    return replaced(kGood, "[[pool]]\n",
                    "[[service]] # two\n" + keys + "route = [{ pool = \"all\" }]\n[[pool]]\n");
  };
  CHECK(
      problems_of(with("name = \"b\"\nid = 8\nvip4 = \"203.0.113.10\" # 2\nport = 81\n")).empty());
  const auto expect = [](const std::string& file, const std::string& at, const std::string& words) {
    const auto problems = problems_of(file);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].line == line_of(file, at));
    CHECK(problems[0].str().find(words) != std::string::npos);
  };
  expect(with("name = \"web\" # 2\nid = 8\nvip4 = \"203.0.113.11\"\n"), "\"web\" # 2",
         "service name \"web\" is used twice");
  expect(with("name = \"b\"\nid = 7 # 2\nvip4 = \"203.0.113.11\"\n"), "id = 7 # 2",
         "service id 7 is used twice");
  expect(with("name = \"b\"\nid = 8\nvip4 = \"203.0.113.10\" # 2\n"), "10\" # 2",
         "address and port 203.0.113.10:80 is used twice");
  expect(with("name = \"b\"\nid = 8\nvip6 = \"2001:db8::10\" # 2\n"), "10\" # 2",
         "address and port [2001:db8::10]:80 is used twice");
}

TEST_CASE("config: references that lead nowhere") {
  for (const Case& c : {
           Case{"pool = \"all\"", "pool = \"alle\"", "alle",
                "there is no pool \"alle\": did you mean \"all\"?"},
           Case{"pool = \"all\"", "pool = \"other\"", "other",
                "add [[pool]] with name = \"other\""},
           Case{"{ node = \"s2\",", "{ node = \"s3\",", "s3",
                "there is no node \"s3\": did you mean \"s1\"?"},
           Case{"{ node = \"s2\",", "{ node = \"archive\",", "archive",
                "add [[node]] with name = \"archive\""},
           Case{"{ node = \"s2\",", "{ node = \"d1\",", "servers = [{ node = \"s1\" }",
                "node \"d1\" is a dispatcher"},
       })
    expect_one(c);
}

TEST_CASE("config: conditions of a route") {
  for (const Case& c : {
           Case{"prefix = \"/api\"", "prefix = \"api\"", "prefix",
                "\"api\" is no prefix: begin it with '/'"},
           Case{"prefix = \"/api\"", "path = \"/a?b\"", "path", "is no path"},
           Case{"prefix = \"/api\"", "path = \"/a\"\nprefix = \"/b\"", "prefix",
                "has both \"path\" and \"prefix\""},
           Case{"prefix = \"/api\"", "host = \"a.org:80\"", "host", "write a name without port"},
           Case{"prefix = \"/api\"", "host = \"a.*.org\"", "host", "is no host condition"},
           Case{"prefix = \"/api\"", "method = \"get\"", "method", "write it in capitals"},
           Case{"prefix = \"/api\"", "header = \"X-Tier\"", "header", "write \"Name: value\""},
           Case{"prefix = \"/api\"", "header = \"X Tier: a\"", "header", "is no header condition"},
           Case{"prefix = \"/api\"", "header = \"X-Tier: \"", "header", "is no header condition"},
       })
    expect_one(c);
}

TEST_CASE("config: a route that nothing reaches") {
  for (const Case& c : {
           Case{"prefix = \"/api\"\n", "", "# second",
                "never reached: the one in line 35 matches first"},
           Case{"pool = \"all\"", "prefix = \"/api/v2\"\npool = \"all\"", "# second",
                "never reached"},
           Case{"pool = \"all\"", "path = \"/api\"\nhost = \"a.org\"\npool = \"all\"", "# second",
                "never reached"},
       })
    expect_one(c);
  const auto reached = [](const std::string& first, const std::string& second) {
    return problems_of(replaced(replaced(kGood, "prefix = \"/api\"", first), "pool = \"all\"",
                                second + "\npool = \"all\""))
        .empty();
  };
  CHECK(reached("prefix = \"/api\"", "prefix = \"/apix\""));
  CHECK(reached("prefix = \"/api/\"", "path = \"/api\""));
  CHECK_FALSE(reached("prefix = \"/\"", "path = \"/api\""));
  CHECK(reached("prefix = \"/\"", ""));
  CHECK(reached("path = \"/api\"", "prefix = \"/api\""));
  CHECK_FALSE(reached("host = \"*.A.org\"", "host = \"x.y.a.ORG\""));
  CHECK_FALSE(reached("host = \"*.a.org\"", "host = \"*.b.a.org\""));
  CHECK(reached("host = \"*.a.org\"", "host = \"a.org\""));
  CHECK(reached("method = \"GET\"", "method = \"PUT\""));
  CHECK_FALSE(reached("header = \"x-a: *\"", "header = \"X-A: 1\""));
  CHECK(reached("header = \"x-a: 1\"", "header = \"X-A: *\""));
}

TEST_CASE("config: every node that may get a flow has an address of the flow's family") {
  for (const Case& c : {
           Case{"address6 = \"fd00:3::3\"\n", "", "[[node]] # s2",
                "node \"s2\" has no address6, which service \"web\" needs for its vip6"},
           Case{"address4 = \"10.0.2.2\"\n", "", "[[node]] # d1",
                "node \"d1\" has no address4, which service \"web\" needs for its vip4"},
       })
    expect_one(c);
  const std::string only_v4 = replaced(kGood, "vip6 = \"2001:db8::10\"\n", "");
  CHECK(problems_of(replaced(only_v4, "address6 = \"fd00:3::3\"\n", "")).empty());
}

TEST_CASE("config: a node id must fit into the IPv4 prefix where IPv4 is used") {
  const std::string big = replaced(kGood, "id = 102", "id = 256");
  REQUIRE(problems_of(big).size() == 1);
  CHECK(problems_of(big)[0].line == line_of(big, "id = 256"));
  CHECK(problems_of(big)[0].str().find(
            "node id 256 has no room in the IPv4 prefix 100.64.0.0/10: use an id from 1 to 255") !=
        std::string::npos);
  CHECK(problems_of(replaced(big, "secret_file", "vpa4 = \"100.0.0.0/8\"\nsecret_file")).empty());
  CHECK(problems_of(replaced(big, "vip4 = \"203.0.113.10\"\n", "")).empty());
  const auto narrow =
      problems_of(replaced(kGood, "secret_file", "vpa4 = \"100.64.0.0/12\"\nsecret_file"));
  REQUIRE(narrow.size() == 2);
  CHECK(narrow[0].fix == "use an id from 1 to 63, or a shorter [cluster] vpa4");
}

TEST_CASE("config: settings that a server has no use for") {
  expect_one({"role = \"server\" # s2", "role = \"server\"\nworkers = 2", "workers",
              "is given for a server"});
  expect_one({"role = \"server\" # s2", "role = \"server\"\ntune_receive_sysctls = true", "tune_",
              "is given for a server"});
}

TEST_CASE("config: what is not TOML is one problem at its place") {
  expect_one({"port = 80\n", "port = \n", "port = \n", "the file must be TOML"});
  expect_one({"name = \"d1\"", "name = \"d1\"\nname = \"d1\" # 2", "\"d1\" # 2", "t.toml:10:"});
}

TEST_CASE("config: all problems are reported, in file order") {
  std::string file = replaced(kGood, "port = 80\n", "port = 0\n");
  file = replaced(file, "pool = \"all\"", "pool = \"al\"");
  file = replaced(file, "control_port = 7421", "control_prt = 1");
  const auto problems = problems_of(file);
  REQUIRE(problems.size() == 3);
  CHECK(problems[0].line == line_of(file, "control_prt"));
  CHECK(problems[1].line == line_of(file, "port = 0"));
  CHECK(problems[2].line == line_of(file, "pool = \"al\""));
}
