<%@ page contentType="text/plain;charset=UTF-8" session="false" trimDirectiveWhitespaces="true" %>
hello <%= request.getRemoteUser() == null ? "anonymous" : request.getRemoteUser() %>
