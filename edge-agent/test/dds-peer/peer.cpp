// Speaks and hears as ROS 2 nodes do, through eProsima Fast DDS on the loopback interface, until its standard input ends.
//
// Usage: peer publish DOMAIN_ID VALUES_FILE   publishes known values again and again
//        peer relay DOMAIN_ID                 see stop.cpp
//        peer listen DOMAIN_ID                see stop.cpp
// Each line of the file is a message, its words separated by blanks; doubles are the 16 hex digits of their bits:
//   joint_states SEC NANOSEC FRAME_ID N_NAMES NAME... N_POSITIONS BITS... N_VELOCITIES BITS... N_EFFORTS BITS...
//   imu SEC NANOSEC FRAME_ID BITS{37}

#include <poll.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/topic/Topic.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>

#include "messages.h"
#include "messagesPubSubTypes.h"
#include "peer.h"

using eprosima::fastdds::dds::DataWriter;
using eprosima::fastdds::dds::DataWriterQos;
using eprosima::fastdds::dds::DomainParticipant;
using eprosima::fastdds::dds::DomainParticipantFactory;
using eprosima::fastdds::dds::DomainParticipantQos;
using eprosima::fastdds::dds::Publisher;
using eprosima::fastdds::dds::Topic;
using eprosima::fastdds::dds::TypeSupport;
using sensor_msgs::msg::dds_::Imu_;
using sensor_msgs::msg::dds_::JointState_;

namespace {

constexpr int kPublishEveryMs = 20;

double read_double(std::istream& words) {
  std::string digits;
  if (!(words >> digits)) fail("a line ends early");
  const uint64_t bits = std::stoull(digits, nullptr, 16);
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

std::vector<double> read_doubles(std::istream& words) {
  size_t count = 0;
  if (!(words >> count)) fail("a count is missing");
  std::vector<double> values;
  for (size_t i = 0; i < count; ++i) values.push_back(read_double(words));
  return values;
}

template <typename Header>
void read_header(std::istream& words, Header& header) {
  std::string frame_id;
  words >> header.stamp().sec() >> header.stamp().nanosec() >> frame_id;
  header.frame_id(frame_id);
}

JointState_ read_joint_state(std::istream& words) {
  JointState_ message;
  read_header(words, message.header());
  size_t count = 0;
  words >> count;
  for (size_t i = 0; i < count; ++i) {
    std::string name;
    words >> name;
    message.name().push_back(name);
  }
  message.position(read_doubles(words));
  message.velocity(read_doubles(words));
  message.effort(read_doubles(words));
  return message;
}

Imu_ read_imu(std::istream& words) {
  Imu_ message;
  read_header(words, message.header());
  auto& q = message.orientation();
  q.x(read_double(words));
  q.y(read_double(words));
  q.z(read_double(words));
  q.w(read_double(words));
  for (double& value : message.orientation_covariance()) value = read_double(words);
  auto& w = message.angular_velocity();
  w.x(read_double(words));
  w.y(read_double(words));
  w.z(read_double(words));
  for (double& value : message.angular_velocity_covariance()) value = read_double(words);
  auto& a = message.linear_acceleration();
  a.x(read_double(words));
  a.y(read_double(words));
  a.z(read_double(words));
  for (double& value : message.linear_acceleration_covariance()) value = read_double(words);
  return message;
}

template <typename PubSubType>
DataWriter* create_writer(DomainParticipant* participant, Publisher* publisher, const std::string& topic_name) {
  TypeSupport type(new PubSubType());
  if (type.register_type(participant) != ReturnCode_t::RETCODE_OK) fail("cannot register a type");
  Topic* topic = participant->create_topic(topic_name, type.get_type_name(), eprosima::fastdds::dds::TOPIC_QOS_DEFAULT);
  if (topic == nullptr) fail("cannot create topic " + topic_name);
  // As a ROS 2 driver with sensor data QoS.
  DataWriterQos qos;
  qos.reliability().kind = eprosima::fastdds::dds::BEST_EFFORT_RELIABILITY_QOS;
  qos.durability().kind = eprosima::fastdds::dds::VOLATILE_DURABILITY_QOS;
  DataWriter* writer = publisher->create_datawriter(topic, qos);
  if (writer == nullptr) fail("cannot create a writer");
  return writer;
}

void publish(DomainParticipant* participant, const std::string& path) {
  std::ifstream file(path);
  if (!file) fail("cannot read " + path);
  std::vector<JointState_> joint_states;
  std::vector<Imu_> imus;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "joint_states") joint_states.push_back(read_joint_state(words));
    else if (kind == "imu") imus.push_back(read_imu(words));
    else fail("unknown kind " + kind);
  }

  Publisher* publisher = participant->create_publisher(eprosima::fastdds::dds::PUBLISHER_QOS_DEFAULT);
  if (publisher == nullptr) fail("cannot create a publisher");
  DataWriter* joint_writer =
      create_writer<sensor_msgs::msg::dds_::JointState_PubSubType>(participant, publisher, "rt/joint_states");
  DataWriter* imu_writer = create_writer<sensor_msgs::msg::dds_::Imu_PubSubType>(participant, publisher, "rt/imu");
  std::cout << "publishing" << std::endl;

  pollfd input = {STDIN_FILENO, POLLIN, 0};
  for (;;) {
    for (auto& message : joint_states) joint_writer->write(&message);
    for (auto& message : imus) imu_writer->write(&message);
    if (poll(&input, 1, kPublishEveryMs) > 0) {
      char byte;
      if (read(STDIN_FILENO, &byte, 1) <= 0) break;
    }
  }
}

}  // namespace

void fail(const std::string& what) {
  std::cerr << "peer: " << what << std::endl;
  std::exit(1);
}

// Nothing leaves this machine: one UDP transport, bound to 127.0.0.1.
DomainParticipant* create_participant(uint32_t domain_id) {
  DomainParticipantQos qos;
  qos.name("outrider_test_peer");
  auto transport = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
  transport->interfaceWhiteList.push_back("127.0.0.1");
  qos.transport().use_builtin_transports = false;
  qos.transport().user_transports.push_back(transport);
  DomainParticipant* participant = DomainParticipantFactory::get_instance()->create_participant(domain_id, qos);
  if (participant == nullptr) fail("cannot create a participant");
  return participant;
}

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (argc != (verb == "publish" ? 4 : 3)) fail("usage: peer publish DOMAIN_ID VALUES_FILE | relay|listen DOMAIN_ID");
  DomainParticipant* participant = create_participant(static_cast<uint32_t>(std::stoul(argv[2])));
  if (verb == "publish") publish(participant, argv[3]);
  else if (verb == "relay") relay(participant);
  else if (verb == "listen") listen(participant);
  else fail("unknown verb " + verb);
  participant->delete_contained_entities();
  DomainParticipantFactory::get_instance()->delete_participant(participant);
  return 0;
}
