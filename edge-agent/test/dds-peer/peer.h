#pragma once

#include <string>

#include <fastdds/dds/domain/DomainParticipant.hpp>

[[noreturn]] void fail(const std::string& what);

// Publishes serialized messages from standard input, each a line: TOPIC TYPE HEX, with the names of ROS 2.
void relay(eprosima::fastdds::dds::DomainParticipant* participant);

// Prints what is heard on the topics of a stop, until standard input ends.
void listen(eprosima::fastdds::dds::DomainParticipant* participant);
